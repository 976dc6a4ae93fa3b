"""The most expensive kernels of a training step and of an inference, by PyTorch's profiler."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

from effnet.benchmark.environment import environment
from effnet.benchmark.train import own_step, synthetic_trainer
from effnet.recipe import Recipe
from effnet.runtime.processes import choose_device
from effnet.training.step import Normalise

_WARMUP = 3


@dataclass(frozen=True)
class ProfileBenchmark:
    """Settings of the profile.

    Attributes:
        recipe: model, sizes, precision, device.
        steps: steps under the profiler.
        most: kernels to report.
    """

    recipe: Recipe
    steps: int = 10
    most: int = 10


def benchmark_profile(settings: ProfileBenchmark) -> dict[str, Any]:
    """Profile both.

    Returns:
        For `training` and `inference`, the `kernels` (on a CPU: operators) that take the most time themselves, their
        milliseconds in a step, calls in a step and share of all of them, and `milliseconds`, the time of all; and the
        environment, as plain values.

    Raises:
        UserError: a device, precision or model is not available.
    """
    device = choose_device(settings.recipe.compute.device)
    trainer, batch = synthetic_trainer(settings.recipe, device)
    training = _profiled(own_step(trainer, batch), settings, device)
    model = trainer.opened.model.eval()
    run: Callable[[torch.Tensor], object] = torch.compile(model) if settings.recipe.compute.compile else model
    images = Normalise(trainer.opened.preprocessing).to(device)(batch.images)

    def infer() -> None:
        with torch.no_grad(), trainer.precision.autocast():
            run(images)

    resolved = trainer.recipe
    return {
        "benchmark": "profile",
        "arch": resolved.model.arch,
        "image_size": resolved.model.image_size,
        "batch_size": resolved.optimizer.batch_size,
        "precision": trainer.precision.name,
        "compiled": resolved.compute.compile,
        "device": str(device),
        "training": training,
        "inference": _profiled(infer, settings, device),
        "environment": environment(),
    }


def _profiled(step: Callable[[], object], settings: ProfileBenchmark, device: torch.device) -> dict[str, Any]:
    on_gpu = device.type == "cuda"
    for _ in range(_WARMUP):
        step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(settings.steps):
            step()
        if on_gpu:
            torch.cuda.synchronize(device)

    def milliseconds(event: FunctionEventAvg) -> float:
        total: float = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        return total / 1000 / settings.steps

    # On a GPU operators would count the time of the kernels that they start once more.
    events = [event for event in profiler.key_averages() if not on_gpu or event.device_type.name == "CUDA"]
    events.sort(key=milliseconds, reverse=True)
    whole = sum(map(milliseconds, events))
    kernels = [
        {
            "name": event.key,
            "milliseconds": milliseconds(event),
            "calls": event.count / settings.steps,
            "share": milliseconds(event) / whole,
        }
        for event in events[: settings.most]
    ]
    return {"milliseconds": whole, "kernels": kernels}


def print_table(result: dict[str, Any]) -> None:
    """Print a result as tables."""
    console = Console()
    for kind in ("training", "inference"):
        found = result[kind]
        table = Table(
            title=f"{kind}: {result['arch']}, {result['image_size']} px, batch {result['batch_size']}, "
            f"{result['precision']}; {found['milliseconds']:.2f} ms a step",
            box=None,
        )
        table.add_column("kernel", max_width=50, no_wrap=True)
        for heading in ("ms", "calls", "share"):
            table.add_column(heading, justify="right")
        for kernel in found["kernels"]:
            table.add_row(
                kernel["name"],
                f"{kernel['milliseconds']:.3f}",
                f"{kernel['calls']:.1f}",
                f"{kernel['share']:.1%}",
            )
        console.print(table)
