"""Cost of checkpoints that are written in the background: training with and without them, in interleaved rounds."""

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from effnet.benchmark.environment import environment
from effnet.benchmark.measure import Step, interleaved
from effnet.benchmark.train import own_step, synthetic_trainer
from effnet.recipe import Recipe
from effnet.runtime.processes import choose_device
from effnet.training.checkpoint import CheckpointFiles, read_checkpoint
from effnet.training.trainer import Trainer

WITHOUT, WITH = "without checkpoints", "with checkpoints"


@dataclass(frozen=True)
class CheckpointBenchmark:
    """Settings of the benchmark.

    Attributes:
        recipe: settings of the training.
        folder: where checkpoints are written; None for the system's folder of temporary files.
        every: steps from one checkpoint to the next.
        saves: checkpoints of a turn.
        rounds: turns of each of the two, of which the median ratio is taken.
    """

    recipe: Recipe
    folder: Path | None = None
    every: int = 50
    saves: int = 2
    rounds: int = 5


@dataclass
class _Saving:
    """A training step, behind which a checkpoint is saved now and then.

    The first save is half an interval into a turn, so that what is written belongs to the turn's time.
    """

    step: Step
    trainer: Trainer
    files: CheckpointFiles
    every: int
    done: int = 0
    stalls: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        self.step()
        self.done += 1
        if self.done % self.every == self.every // 2:
            begun = time.perf_counter()
            self.files.save(self.trainer.checkpoint())
            self.stalls.append(time.perf_counter() - begun)


def benchmark_checkpoint(settings: CheckpointBenchmark) -> dict[str, Any]:
    """Measure a training with and without checkpoints.

    Returns:
        Settings, images per second of both, their ratio, the time that a save held up the loop, the size of a
        checkpoint, the time of reading one, and the environment, as plain values for JSON.
    """
    device = choose_device(settings.recipe.compute.device)
    # A short epoch, so that its mixtures are drawn quickly.
    trainer, batch = synthetic_trainer(settings.recipe.replace({"prof": settings.every}), device)
    step = own_step(trainer, batch)
    with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
        files = CheckpointFiles(Path(folder), "checkpoint.pth.tar", 0)
        saving = _Saving(step, trainer, files, settings.every)
        timings = interleaved(
            {WITHOUT: step, WITH: saving},
            images=len(batch.targets),
            device=device,
            rounds=settings.rounds,
            steps=settings.every * settings.saves,
            warmup=settings.every,  # the first save allocates memory
        )
        files.flush()
        size = files.latest.stat().st_size
        begun = time.perf_counter()
        read_checkpoint(files.latest)
        reading = time.perf_counter() - begun
    stalls = saving.stalls[1:]
    return {
        "benchmark": "checkpoint",
        "arch": trainer.recipe.model.arch,
        "image_size": trainer.recipe.model.image_size,
        "batch_size": trainer.recipe.optimizer.batch_size,
        "precision": trainer.precision.name,
        "every": settings.every,
        "rows": {name: timing.to_dict() for name, timing in timings.items()},
        "ratio": timings[WITH].ratio_to(timings[WITHOUT]),
        "bytes": size,
        "saves": len(stalls),
        "stall": statistics.median(stalls),
        "stall_at95": float(np.percentile(stalls, 95)),
        "stall_at100": max(stalls),
        "reading": reading,
        "environment": environment(),
    }


def print_table(result: dict[str, Any]) -> None:
    """Print a result."""
    console = Console()
    console.print(
        f"{result['arch']}, {result['image_size']} px, batch {result['batch_size']}, {result['precision']}, "
        f"a checkpoint of {result['bytes'] / 1e6:.1f} MB every {result['every']} steps"
    )
    for name, row in result["rows"].items():
        console.print(f"{name:20} {row['images_per_second']:.1f} images/s")
    console.print(
        f"{100 * (1 - result['ratio']):.2f} % of throughput; a save stops the loop for {1e3 * result['stall']:.1f} ms "
        f"(at most {1e3 * result['stall_at100']:.1f} ms); reading takes {result['reading']:.2f} s"
    )
