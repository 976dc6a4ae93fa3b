"""Logs of runs that were never trained, for tests of what a report makes of them."""

import json
import math
from pathlib import Path
from typing import Any

from tests.runs import quick_recipe, resolved

HOSTILE = '</script><script>window.broken=1</script><img src=x onerror="window.broken=1">{{7*7}}'
"""name of a class or a run that a careless page would run"""


def metrics_of(epoch: int) -> dict[str, float]:
    """Metrics of an epoch from 0, under all the names of a training with EMA and loss scaling."""
    progress = 1 - math.exp(-epoch / 90)
    latency = {
        f"compute_latency{end}": 0.02 * factor
        for end, factor in (("", 1), ("_at95", 1.1), ("_at99", 1.3), ("_at100", 2 + math.sin(epoch)))
    }
    return {
        "train.loss": 6.9 - 4.5 * progress + 0.05 * math.sin(epoch),
        "train.lr": 0.08 * (1 + math.cos(math.pi * epoch / 400)) / 2,
        "train.skipped_steps": float(epoch % 97 == 5),
        "train.grad_scale": 128.0 * 2 ** (epoch // 20 % 6),
        "train.total_ips": 2500 + 40 * math.sin(epoch / 3),
        "train.compute_ips": 2600 + 30 * math.sin(epoch / 3),
        "train.data_time": 0.003 + 0.001 * math.sin(epoch / 5) ** 2,
        "train.compute_time": 0.098,
        "train.peak_memory": 21000.0 + epoch,
        "val.loss": 6.9 - 5.6 * progress + 0.1 * math.sin(epoch * 1.7),
        "val.top1": 77 * progress + math.sin(epoch * 1.7),
        "val.top5": 93 * progress,
        "val.f1": 0.76 * progress,
        "val.balanced_accuracy": 0.77 * progress,
        "val.auroc": 0.5 + 0.49 * progress,
        "val.average_precision": 0.8 * progress,
        "val.ece": 0.08 - 0.02 * progress,
        "val.calibrated_ece": 0.03,
        "val.total_ips": 5000.0,
        **{f"val.{name}": value for name, value in latency.items()},
        "val_ema.loss": 6.9 - 5.7 * progress,
        "val_ema.top1": 77.3 * progress,
        "val_ema.top5": 93.4 * progress,
    }


def write_log(
    workspace: Path, epochs: int = 3, *, name: str = "report.json", finished: bool = True, **settings: Any
) -> Path:
    """Write the log of a training of some epochs, and return it.

    Args:
        workspace: folder, which is made.
        epochs: epochs that are finished.
        name: name of the log.
        finished: the training has written its summary.
        settings: settings of the recipe.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    recipe = resolved(quick_recipe(workspace, **{"epochs": max(1, epochs), **settings})).to_dict()
    facts = {
        "device": "cpu",
        "world_size": 1,
        "classes": 1000,
        "machine": {"cpu": "a processor", "python": "3.12"},
    }
    lines: list[dict[str, Any]] = [record("parameters", {"recipe": recipe, **facts}, None, 0)]
    for epoch in range(epochs):
        metrics = metrics_of(epoch)
        lines.append(
            record("iteration", {"train.loss": metrics["train.loss"], "train.total_ips": 2500.0}, epoch, 10)
        )
        lines.append(record("epoch", metrics, epoch, 10 * (epoch + 1)))
    if finished:
        lines.append(record("summary", {**metrics_of(epochs - 1), "best_top1": 70.0}, epochs, None))
    log = workspace / name
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return log


def record(kind: str, data: dict[str, Any], epoch: int | None, step: int | None) -> dict[str, Any]:
    """One line of a log."""
    time = 1_700_000_000.0 + 60 * (epoch or 0) + (step or 0)
    return {"type": kind, "time": time, "epoch": epoch, "step": step, "data": data}
