"""Training throughput: this project's own step beside other implementations' in the same run."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from effnet.benchmark.environment import environment
from effnet.benchmark.measure import Step, Timing, interleaved
from effnet.benchmark.peers import peer_model
from effnet.data import Batch
from effnet.quantization.model import build
from effnet.recipe import Recipe
from effnet.runtime.log import RunLog
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes, choose_device
from effnet.training.setup import open_run
from effnet.training.step import Normalise
from effnet.training.trainer import Trainer


@dataclass(frozen=True)
class TrainBenchmark:
    """What to measure.

    Attributes:
        recipe: model, sizes, precision and device; `compile` is measured both ways.
        peers: whether to run torchvision and timm beside it.
        compiled: whether to run each compiled as well, which takes minutes to prepare on few cores.
        rounds, steps, warmup: see `effnet.benchmark.measure.interleaved`.
    """

    recipe: Recipe
    peers: bool = True
    compiled: bool = True
    rounds: int = 5
    steps: int = 5
    warmup: int = 3


def benchmark_train(settings: TrainBenchmark) -> dict[str, Any]:
    """Measure; gives what `write` stores: the settings, a row per contender and the environment."""
    device = choose_device(settings.recipe.compute.device)
    trainer, batch = synthetic_trainer(settings.recipe.replace({"compile": False}), device)
    contenders = {"effnet": own_step(trainer, batch)}
    if settings.compiled:
        compiled, _ = synthetic_trainer(settings.recipe.replace({"compile": True}), device)
        contenders["effnet compiled"] = own_step(compiled, batch)
    skipped = {}
    if settings.peers:
        for peer in ("torchvision", "timm"):
            try:
                contenders[peer] = _peer_step(peer, trainer, batch, compiles=False)
                if settings.compiled:
                    contenders[f"{peer} compiled"] = _peer_step(peer, trainer, batch, compiles=True)
            except ImportError as error:
                skipped[peer] = str(error)
    timings = interleaved(
        contenders,
        images=len(batch.targets),
        device=device,
        rounds=settings.rounds,
        steps=settings.steps,
        warmup=settings.warmup,
    )
    resolved = trainer.recipe
    return {
        "benchmark": "train",
        "arch": resolved.model.arch,
        "image_size": resolved.model.image_size,
        "batch_size": resolved.optimizer.batch_size,
        "precision": trainer.precision.name,
        "rows": {name: _row(timing, timings) for name, timing in timings.items()},
        "skipped": skipped,
        "environment": environment(),
    }


def benchmark_sweep(
    settings: TrainBenchmark,
    archs: Sequence[str],
    batch_sizes: Sequence[int],
    precisions: Sequence[str | None],
) -> dict[str, Any]:
    """Measure every model in every precision and batch; gives what `write` stores: `runs` and the environment.

    A batch that does not fit the GPU's memory is left out and named in `skipped`.
    """
    runs, skipped = [], {}
    for arch, precision, batch_size in itertools.product(archs, precisions, batch_sizes):
        # Else the compiler, at another batch, compiles for any.
        torch.compiler.reset()
        recipe = settings.recipe.replace({"arch": arch, "precision": precision, "batch_size": batch_size})
        try:
            runs.append(benchmark_train(replace(settings, recipe=recipe)))
        except torch.OutOfMemoryError:
            skipped[f"{arch}, batch {batch_size}, {precision or 'default precision'}"] = (
                "does not fit the memory"
            )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return {"benchmark": "train", "runs": runs, "skipped": skipped, "environment": environment()}


def _row(timing: Timing, timings: dict[str, Timing]) -> dict[str, Any]:
    baselines = [name for name in ("torchvision", "torchvision compiled") if name in timings]
    return {
        **timing.to_dict(),
        **{
            f"ratio_to_{name}": timing.images_per_second / timings[name].images_per_second
            for name in baselines
        },
    }


def synthetic_trainer(recipe: Recipe, device: torch.device) -> tuple[Trainer, Batch]:
    """A trainer on random images that writes nothing, and its batch."""
    recipe = recipe.replace({"data_backend": "synthetic", "print_freq": 1_000_000})
    opened = open_run(recipe, None, Processes.alone(device), ("train",), build=build)
    trainer = Trainer(opened, RunLog(None))
    return trainer, next(iter(trainer.loader))


def own_step(trainer: Trainer, batch: Batch) -> Step:
    """The training step as the loop does it."""
    trainer.step.train()
    mix = trainer.mixes(epoch=0)[0]
    return lambda: trainer.train_on(batch, mix, trainer.accumulation)


def _peer_step(peer: str, trainer: Trainer, batch: Batch, *, compiles: bool) -> Step:
    """A plain training loop's step over another project's model: the same images, loss, optimizer and precision."""
    device, recipe = trainer.processes.device, trainer.recipe
    model = peer_model(peer, recipe).to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    normalise = Normalise(trainer.opened.preprocessing).to(device)
    # A scaler of its own: the two adapt to different losses.
    precision = Precision(replace(recipe.compute), device)
    optimizer = torch.optim.RMSprop(
        model.parameters(), lr=1e-4, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=1e-5, foreach=True
    )
    forward: Callable[[Tensor], Tensor] = torch.compile(model) if compiles else model

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with precision.autocast():
            logits = forward(normalise(batch.images))
        loss = F.cross_entropy(
            logits.float(), batch.targets, label_smoothing=recipe.optimizer.label_smoothing
        )
        precision.scale(loss).backward()
        precision.scaler.step(optimizer)
        precision.update_scale()

    return step


def print_table(result: dict[str, Any]) -> None:
    """Show a result to people."""
    title = f"training {result['arch']}, {result['image_size']} px, batch {result['batch_size']}, {result['precision']}"
    table = Table(title=title, box=None)
    table.add_column("implementation")
    headings = ("images/s", "step avg", "95 %", "99 %", "x torchvision", "x compiled")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, row in result["rows"].items():
        ratios = [row.get(f"ratio_to_{base}") for base in ("torchvision", "torchvision compiled")]
        table.add_row(
            name,
            f"{row['images_per_second']:.1f}",
            *(f"{1000 * row[key]:.1f} ms" for key in ("latency", "latency_at95", "latency_at99")),
            *(f"{ratio:.2f}" if ratio else "" for ratio in ratios),
        )
    console = Console()
    console.print(table)
    for name, reason in result["skipped"].items():
        console.print(f"{name} left out: {reason}")
