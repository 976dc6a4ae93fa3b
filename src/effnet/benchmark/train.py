"""Training throughput of this project and of other implementations, measured in the same run."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from effnet.benchmark.baselines import LIBRARIES, baseline_model
from effnet.benchmark.cost import cost_facts
from effnet.benchmark.environment import environment
from effnet.benchmark.measure import Step, Timing, interleaved
from effnet.data import Batch
from effnet.quantization.model import build
from effnet.recipe import Recipe
from effnet.runtime.log import RunLog
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes, choose_device
from effnet.training.setup import open_run
from effnet.training.step import Normalise
from effnet.training.trainer import Trainer

# What an epoch costs: name in a row, heading, format.
_COSTS = (
    ("images_per_joule", "images/J", ".2f"),
    ("epoch_hours", "hours", ".2f"),
    ("epoch_cost", "cost", ".2f"),
)


@dataclass(frozen=True)
class TrainBenchmark:
    """Settings of the benchmark.

    Attributes:
        recipe: model, sizes, precision and device; `compiled` replaces its `compile`.
        baselines: run torchvision and timm beside this project.
        compiled: run each with torch.compile too, which takes minutes to compile on few cores.
        price: of the machine for an hour, in any currency; None if an epoch's cost is not wanted.
        rounds, steps, warmup: see `effnet.benchmark.measure.interleaved`.
    """

    recipe: Recipe
    baselines: bool = True
    compiled: bool = True
    price: float | None = None
    rounds: int = 5
    steps: int = 5
    warmup: int = 3


def benchmark_train(settings: TrainBenchmark) -> dict[str, Any]:
    """Measure each implementation.

    Returns:
        Settings, a row for each implementation, and the environment, as plain values for JSON.
    """
    device = choose_device(settings.recipe.compute.device)
    trainer, batch = synthetic_trainer(settings.recipe.replace({"compile": False}), device)
    steps = {"effnet": own_step(trainer, batch)}
    if settings.compiled:
        compiled, _ = synthetic_trainer(settings.recipe.replace({"compile": True}), device)
        steps["effnet compiled"] = own_step(compiled, batch)
    skipped = {}
    if settings.baselines:
        for library in LIBRARIES:
            try:
                steps[library] = _baseline_step(library, trainer, batch, compiles=False)
                if settings.compiled:
                    steps[f"{library} compiled"] = _baseline_step(library, trainer, batch, compiles=True)
            except ImportError as error:
                skipped[library] = str(error)
    timings = interleaved(
        steps,
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
        "price_per_hour": settings.price,
        "rows": {name: _row(timing, timings, settings.price) for name, timing in timings.items()},
        "skipped": skipped,
        "environment": environment(),
    }


def benchmark_sweep(
    settings: TrainBenchmark,
    archs: Sequence[str],
    batch_sizes: Sequence[int],
    precisions: Sequence[str | None],
) -> dict[str, Any]:
    """Measure every model in every precision and batch size.

    Returns:
        `runs`, each as of `benchmark_train`, the batch sizes `skipped` because they do not fit the GPU's memory, and
        the environment, as plain values for JSON.
    """
    runs, skipped = [], {}
    for arch, precision, batch_size in itertools.product(archs, precisions, batch_sizes):
        # Otherwise the compiler makes code for any batch size from the second one on.
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


def _row(timing: Timing, timings: dict[str, Timing], price: float | None) -> dict[str, Any]:
    baselines = [name for name in ("torchvision", "torchvision compiled") if name in timings]
    return {
        **timing.to_dict(),
        **cost_facts(timing.images_per_second, timing.watts, price),
        **{
            f"ratio_to_{name}": timing.images_per_second / timings[name].images_per_second
            for name in baselines
        },
    }


def synthetic_trainer(recipe: Recipe, device: torch.device) -> tuple[Trainer, Batch]:
    """Return a trainer on random images that writes nothing, and its batch."""
    recipe = recipe.replace({"data_backend": "synthetic", "print_freq": 1_000_000})
    opened = open_run(recipe, None, Processes.alone(device), ("train",), build=build)
    trainer = Trainer(opened, RunLog(None))
    return trainer, next(iter(trainer.loader))


def own_step(trainer: Trainer, batch: Batch) -> Step:
    """Return the training step as the training loop runs it."""
    trainer.step.train()
    mix = trainer.mixes(epoch=0, steps=1)[0]
    return lambda: trainer.train_on(batch, mix, trainer.accumulation)


def _baseline_step(library: str, trainer: Trainer, batch: Batch, *, compiles: bool) -> Step:
    """Return a plain training loop's step over another library's model: same images, loss, optimizer, precision."""
    device, recipe = trainer.processes.device, trainer.recipe
    model = baseline_model(library, recipe).to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    normalise = Normalise(trainer.opened.preprocessing).to(device)
    # A loss scaler of its own, which adapts to its own loss.
    precision = Precision(
        recipe.compute.precision,
        device,
        static_loss_scale=recipe.compute.static_loss_scale,
        initial_loss_scale=recipe.compute.initial_loss_scale,
    )
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
    """Print a result as a table."""
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
    if (costs := _cost_table(result)) is not None:
        console.print(costs)
    for name, reason in result["skipped"].items():
        console.print(f"{name} left out: {reason}")


def _cost_table(result: dict[str, Any]) -> Table | None:
    """Return the table of what is known of power and price; None if neither is."""
    rows = result["rows"]
    known = {name for row in rows.values() for name in row}
    if result["price_per_hour"] is None:
        known -= {"epoch_hours"}
    shown = [column for column in _COSTS if column[0] in known]
    if not shown:
        return None
    table = Table(title="power, and an epoch of ImageNet", box=None)
    table.add_column("implementation")
    for _, heading, _ in shown:
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(format(row[key], form) if key in row else "" for key, _, form in shown))
    return table
