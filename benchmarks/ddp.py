"""Overhead of DDP on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.scaling import layers
from effnet.benchmark.environment import environment
from effnet.benchmark.measure import interleaved
from effnet.benchmark.train import own_step, synthetic_trainer
from effnet.recipe import Recipe
from effnet.runtime.processes import choose_device, data_parallel


def benchmark_ddp(recipe: Recipe, *, rounds: int, steps: int) -> dict[str, Any]:
    """Measure a training step without DDP and with it in one process, interleaved.

    Args:
        recipe: model, sizes and device.
        rounds, steps: see `effnet.benchmark.measure.interleaved`.

    Returns:
        Settings, rates, the overhead as a share of the step, and the environment, as plain values for JSON.
    """
    device = choose_device(recipe.compute.device)
    with _group_of_one(device):
        plain, batch = synthetic_trainer(recipe, device)
        parallel, _ = synthetic_trainer(recipe, device)
        parallel.step = data_parallel(
            parallel.step, bucket_size=recipe.compute.bucket_size, accumulates=False
        )
        timings = interleaved(
            {"alone": own_step(plain, batch), "DDP": own_step(parallel, batch)},
            images=len(batch.targets),
            device=device,
            rounds=rounds,
            steps=steps,
            warmup=3,
        )
    arch = plain.recipe.model.arch
    return {
        "benchmark": "scaling",
        "arch": arch,
        "image_size": plain.recipe.model.image_size,
        "batch_size": plain.recipe.optimizer.batch_size,
        "images_per_second": {name: timing.images_per_second for name, timing in timings.items()},
        "rounds": {name: timing.rounds for name, timing in timings.items()},
        "overhead": timings["alone"].ratio_to(timings["DDP"]) - 1,
        "gradient_bytes": sum(layer.gradient for layer in layers(arch)),
        "environment": environment(),
    }


@contextmanager
def _group_of_one(device: torch.device) -> Iterator[None]:
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def print_overhead(result: dict[str, Any]) -> None:
    """Print a result, and the command that simulates a cluster from it."""
    rates = result["images_per_second"]
    print(f"{result['arch']}, {result['image_size']} px, batch {result['batch_size']}")
    print(f"without DDP {rates['alone']:.1f} images/s, with DDP in one process {rates['DDP']:.1f} images/s")
    print(f"overhead of DDP: {100 * result['overhead']:.2f} % (median of pairs)")
    print(f"gradients: {result['gradient_bytes'] / 1e6:.1f} MB a step")
    print(
        f"on a cluster: python -m benchmarks scaling --simulate --arch {result['arch']} "
        f"--batch-size {result['batch_size']} --images-per-second {rates['alone']:.0f}"
    )
