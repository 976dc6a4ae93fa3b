"""One of several processes that train together: `python -m benchmarks.sync_process STORE RANK WORLD PLAN OUT`.

STORE is a file that all share, PLAN a JSON object with the settings of `benchmarks.sync.Plan`. OUT gets a JSON object
with this process's seconds in each round.
"""

import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.scaling import buckets, layers
from effnet.benchmark.train import own_step, synthetic_trainer
from effnet.recipe import Recipe
from effnet.runtime.processes import data_parallel

_TIMEOUT = timedelta(minutes=10)
_WARMUP = 2


def measure(plan: dict[str, Any], world: int) -> dict[str, list[float]]:
    """Return the seconds of each round: `alone`, `together`, `sums` of the gradients, and one `number`'s sum.

    Args:
        plan: arch, image_size, batch_size, bucket_size, rounds.
        world: processes in the group.
    """
    work = _work(plan, world)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(plan["rounds"] + _WARMUP):
        for name, run in work.items():
            dist.barrier()
            begun = time.perf_counter()
            run()
            if number >= _WARMUP:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def _work(plan: dict[str, Any], world: int) -> dict[str, Callable[[], object]]:
    """Return what is measured, by name."""
    recipe = Recipe().replace({name: plan[name] for name in ("arch", "image_size", "batch_size")})
    cpu = torch.device("cpu")
    plain, batch = synthetic_trainer(recipe, cpu)
    parallel, _ = synthetic_trainer(recipe, cpu)
    parallel.step = data_parallel(parallel.step, bucket_size=plan["bucket_size"], accumulates=False)
    sizes = [size for size, _ in buckets(layers(plan["arch"]), plan["bucket_size"])]
    gradients = [torch.ones(size // 4) for size in sizes]

    def sums() -> None:
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient.div_(world)

    return {
        "alone": own_step(plain, batch),
        "together": own_step(parallel, batch),
        "sums": sums,
        "number": lambda: dist.all_reduce(torch.ones(1)),
    }


def _main(store: str, rank: int, world: int, plan: str, out: Path) -> None:
    torch.set_num_threads(1)
    shared = dist.FileStore(store, world)
    dist.init_process_group("gloo", store=shared, rank=rank, world_size=world, timeout=_TIMEOUT)
    seconds = measure(json.loads(plan), world)
    out.write_text(json.dumps(seconds), encoding="utf-8")
    dist.barrier()  # none leaves while another still talks to it
    dist.destroy_process_group()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
