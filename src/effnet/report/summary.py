"""Figures of runs in a few words: the table at the head of a report, and their machines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effnet.report.runs import Run
from effnet.runtime.text import printable

_VALIDATED = {"val": "", "val_ema": " (EMA)", "val_avg": " (mean of the last epochs)"}
_LABELS = {
    "device": "device",
    "cpu": "processor",
    "world_size": "processes",
    "train_images": "training images",
    "val_images": "validation images",
    "classes": "classes",
}


@dataclass(frozen=True)
class Summary:
    """A run in a few figures, each as text.

    Attributes:
        state: finished or not, and how far.
        best: the best value of the run's metric, and its epoch.
        loss: the lowest validation loss, or the last training loss where there was no validation.
        rate: images a second in training, median over the epochs.
        duration: time from the first record to the last.
        model: model and size of its images.
    """

    state: str
    best: str
    loss: str
    rate: str
    duration: str
    model: str


def summarise(run: Run) -> Summary:
    """Return the figures of a run."""
    arch, side = run.setting("model", "arch"), run.setting("model", "image_size")
    return Summary(
        state=_state(run),
        best=_best(run),
        loss=_loss(run),
        rate=_rate(run),
        duration=_duration(run.seconds),
        model=printable(f"{arch}, {side} px" if side else arch or "unknown"),
    )


def live_line(run: Run) -> str:
    """Return where a run stands, on one line."""
    if run.is_finished or run.position is None:
        return _state(run)
    epoch, step, metrics = run.position
    if epoch <= len(run.epochs):
        return _state(run)
    parts = [f"epoch {epoch} of {run.setting('schedule', 'epochs') or '?'}, step {step}"]
    if "train.loss" in metrics:
        parts.append(f"loss {metrics['train.loss']:.4f}")
    if "train.total_ips" in metrics:
        parts.append(f"{metrics['train.total_ips']:.0f} images/s")
    return printable(", ".join(parts))


def facts_table(runs: Sequence[Run]) -> list[tuple[str, tuple[str, ...]]]:
    """Return machine, data and versions: a label, and the value of each run."""
    flat = [_flat(run.facts) for run in runs]
    names = list(dict.fromkeys(name for facts in flat for name in facts))
    return [
        (printable(_LABELS.get(name, name)), tuple(printable(facts.get(name, "")) for facts in flat))
        for name in names
    ]


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts without the levels of their groups."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        found |= _flat(value) if isinstance(value, Mapping) else {str(name): value}
    return found


def _state(run: Run) -> str:
    wanted = run.setting("schedule", "epochs")
    done = f"{len(run.epochs)} of {wanted} epochs" if isinstance(wanted, int) else f"{len(run.epochs)} epochs"
    return f"finished, {done}" if run.is_finished else f"not finished, {done}"


def _best(run: Run) -> str:
    """Return the best top-1 accuracy or, where another metric decides, that one."""
    wanted = run.setting("schedule", "best_metric")
    metric = wanted if isinstance(wanted, str) and f"val.{wanted}" in run.metrics else "top1"
    lowest = metric in ("loss", "ece")
    found = [
        (best[0], best[1], label)
        for prefix, label in _VALIDATED.items()
        if (best := run.best(f"{prefix}.{metric}", lowest=lowest)) is not None
    ]
    if not found:
        return "not validated"
    value, epoch, label = min(found) if lowest else max(found, key=lambda each: each[0])
    shown = f"top-1 {value:.2f} %" if metric == "top1" else f"{metric} {value:.4g}"
    return f"{shown}{label}, epoch {epoch}"


def _loss(run: Run) -> str:
    best = run.best("val.loss", lowest=True)
    if best is not None:
        return f"{best[0]:.4f}, epoch {best[1]}"
    last = run.last("train.loss")
    return "" if last is None else f"{last:.4f} (training)"


def _rate(run: Run) -> str:
    rates = sorted(value for value in run.metrics.get("train.total_ips", ()) if value is not None)
    return f"{rates[len(rates) // 2]:,.0f} images/s" if rates else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
