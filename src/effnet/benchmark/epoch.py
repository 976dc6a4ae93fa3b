"""How near training comes to the slower of its two halves: input alone, and the step alone.

An epoch as the trainer runs it, with its input, step, EMA, log and reports, is timed beside a pass over the input
that throws the images away and beside steps on one batch that lies ready. Rounds are interleaved.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from effnet.benchmark.environment import environment
from effnet.data import Batch, Loader
from effnet.errors import UserError
from effnet.recipe import Recipe
from effnet.training.distributed import Processes, choose_device
from effnet.training.log import RunLog
from effnet.training.run import open_run
from effnet.training.trainer import Trainer

INPUT, STEP, EPOCH = "input alone", "step alone", "epoch"


@dataclass(frozen=True)
class EpochBenchmark:
    """What to measure.

    Attributes:
        recipe: settings of the training.
        path: folder of images; None with synthetic ones.
        rounds: rounds, of which the median is taken.
        steps: steps in a round of each contender.
    """

    recipe: Recipe
    path: Path | None
    rounds: int = 5
    steps: int = 20


def benchmark_epoch(settings: EpochBenchmark) -> dict[str, Any]:
    """Measure; gives what `write` stores: the settings, images a second of each, their ratio, the environment.

    Raises:
        UserError: settings or images that can't be used, or too few images.
    """
    device = choose_device(settings.recipe.compute.device)
    recipe = settings.recipe.replace({"prof": settings.steps})
    processes = Processes(0, 0, 1, 1, device)
    opened = open_run(recipe, settings.path, processes, ("train",))
    loader = opened.data.train
    assert loader is not None
    if len(loader) < settings.steps:
        raise UserError(f"{settings.path} has {len(loader)} batches for training; give fewer --steps")
    with tempfile.TemporaryDirectory() as scratch, RunLog(Path(scratch, "log.json")) as log:
        trainer = Trainer(
            opened.recipe,
            opened.model,
            loader,
            None,
            preprocessing=opened.preprocessing,
            precision=opened.precision,
            processes=processes,
            files=None,
            log=log,
            metadata={},
            given_recipe=recipe,
        )
        contenders = _contenders(trainer, loader, settings.steps)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(settings.rounds + 1):
            for name, run in contenders.items():
                loader.load_state_dict({"epoch": 0, "step": 0})
                rate = _rate(run, device)
                if number:  # the first round starts workers and compiles
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


def _contenders(trainer: Trainer, loader: Loader, steps: int) -> dict[str, Callable[[], int]]:
    """Name to what runs `steps` steps and gives the number of images."""

    def read() -> int:
        images, batches = 0, iter(loader)
        for _ in range(steps):
            images += len(next(batches).targets)
        return images

    ready: list[Batch] = []
    mix_weight = torch.tensor(0.9, device=trainer.processes.device)

    def step() -> int:
        if not ready:
            ready.append(next(iter(loader)))
            trainer.step.train()
        for _ in range(steps):
            trainer.train_on(ready[0], mix_weight, trainer.accumulation)
        return steps * len(ready[0].targets)

    def epoch() -> int:
        trainer.train_epoch()
        return steps * len(ready[0].targets)

    return {INPUT: read, STEP: step, EPOCH: epoch}


def _rate(run: Callable[[], int], device: torch.device) -> float:
    begun = time.perf_counter()
    images = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return images / (time.perf_counter() - begun)


def print_table(result: dict[str, Any]) -> None:
    """Show a result to people."""
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
