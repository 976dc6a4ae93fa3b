"""Speed of a whole epoch relative to the slower of its two halves: input alone, and the step alone.

Three loops are timed in interleaved rounds: an epoch as the trainer runs it, with input, step, EMA and log; a pass over
the input that drops the images; and steps on one batch in memory.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from effnet.benchmark.environment import environment
from effnet.benchmark.train import own_step
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.log import RunLog
from effnet.runtime.processes import Processes, choose_device
from effnet.training.setup import open_run
from effnet.training.trainer import Trainer

INPUT, STEP, EPOCH = "input alone", "step alone", "epoch"


@dataclass(frozen=True)
class EpochBenchmark:
    """Settings of the benchmark.

    Attributes:
        recipe: settings of the training.
        path: folder of images; None for synthetic ones.
        rounds: rounds, of which the median is taken.
        steps: steps of each loop in a round.
    """

    recipe: Recipe
    path: Path | None
    rounds: int = 5
    steps: int = 20


def benchmark_epoch(settings: EpochBenchmark) -> dict[str, Any]:
    """Measure the three loops.

    Returns:
        Settings, images per second of each loop, the ratio, and the environment, as plain values for JSON.

    Raises:
        UserError: settings or images can't be used, or there are too few images.
    """
    device = choose_device(settings.recipe.compute.device)
    recipe = settings.recipe.replace({"prof": settings.steps})
    opened = open_run(recipe, settings.path, Processes.alone(device), ("train",))
    loader = opened.data.train
    assert loader is not None
    if len(loader) < settings.steps:
        raise UserError(f"{settings.path} has {len(loader)} batches for training; give fewer --steps")
    with tempfile.TemporaryDirectory() as scratch, RunLog(Path(scratch, "log.json")) as log:
        trainer = Trainer(opened, log)
        loops = _loops(trainer, settings.steps)
        images = settings.steps * opened.recipe.optimizer.batch_size
        rates: dict[str, list[float]] = {name: [] for name in loops}
        for number in range(settings.rounds + 1):
            for name, run in loops.items():
                loader.load_state_dict({"epoch": 0, "step": 0})
                rate = _rate(run, images, device)
                if number:  # the first round starts the workers and compiles
                    rates[name].append(rate)
    medians = {name: statistics.median(of) for name, of in rates.items()}
    return {
        "benchmark": "epoch",
        "arch": opened.recipe.model.arch,
        "image_size": opened.recipe.model.image_size,
        "batch_size": opened.recipe.optimizer.batch_size,
        "data_backend": opened.recipe.data.data_backend,
        "precision": trainer.precision.name,
        "compile": recipe.compute.compile,
        "images_per_second": medians,
        "rounds": rates,
        "share_of_the_slower": medians[EPOCH] / min(medians[INPUT], medians[STEP]),
        "environment": environment(),
    }


def _loops(trainer: Trainer, steps: int) -> dict[str, Callable[[], object]]:
    """Return the loops by name; each runs `steps` steps."""
    one_step = own_step(trainer, next(iter(trainer.loader)))

    def read() -> None:
        for _ in islice(trainer.loader, steps):
            pass

    def step() -> None:
        for _ in range(steps):
            one_step()

    return {INPUT: read, STEP: step, EPOCH: trainer.train_epoch}


def _rate(run: Callable[[], object], images: int, device: torch.device) -> float:
    begun = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return images / (time.perf_counter() - begun)


def print_table(result: dict[str, Any]) -> None:
    """Print a result as a table."""
    table = Table(
        title=f"{result['arch']}, {result['image_size']} px, batch {result['batch_size']}, {result['precision']}, "
        f"{result['data_backend']}",
        box=None,
    )
    table.add_column("")
    table.add_column("images/s", justify="right")
    for name, rate in result["images_per_second"].items():
        table.add_row(name, f"{rate:.1f}")
    console = Console()
    console.print(table)
    console.print(f"the epoch reaches {100 * result['share_of_the_slower']:.1f} % of the slower of the two")
