"""Charts of metrics over epochs. A further one is a row of `CURVES`."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from effnet.report.charts import Chart, Column, colour, dash, short
from effnet.report.runs import Run

_MARKED = 30  # epochs up to which each value has a mark of its own
_TOPK = re.compile(r"val(?:_ema|_avg)?\.top(\d+)")
_VALIDATED = {"val": "validation", "val_ema": "EMA", "val_avg": "mean of the last epochs"}


@dataclass(frozen=True)
class Curve:
    """A chart of metrics over epochs.

    Attributes:
        name: see `Chart`.
        title: see `Chart`.
        axis: quantity and unit of the values.
        text: see `Chart`.
        lines: label by metric.
        factor: of the logged values, for another unit.
        is_log: the axis of values is logarithmic.
        lowest_is_best: None where neither end is better.
    """

    name: str
    title: str
    axis: str
    text: str
    lines: dict[str, str]
    factor: float = 1.0
    is_log: bool = False
    lowest_is_best: bool | None = None


@dataclass(frozen=True)
class _Line:
    """A line of a chart: its run, its label, its values in the run's epochs."""

    run: Run
    label: str
    values: Sequence[float | None]


def _validated(metric: str) -> dict[str, str]:
    return {f"{prefix}.{metric}": label for prefix, label in _VALIDATED.items()}


CURVES = (
    Curve(
        "loss",
        "Loss",
        "cross entropy",
        "Training loss includes label smoothing, mixup and whatever else the recipe adds, validation loss does not: "
        "compare each with itself.",
        {"train.loss": "training", **_validated("loss")},
        lowest_is_best=True,
    ),
    Curve(
        "top1",
        "Top-1 accuracy",
        "images, %",
        "Share of the validation images whose most probable class is the right one.",
        _validated("top1"),
        lowest_is_best=False,
    ),
    Curve(
        "scores",
        "Scores over the classes",
        "share of 1",
        "Means over the classes, each with the same weight; AUROC and average precision where they were measured.",
        {
            "val.f1": "F1",
            "val.balanced_accuracy": "balanced accuracy",
            "val.auroc": "AUROC",
            "val.average_precision": "average precision",
        },
        lowest_is_best=False,
    ),
    Curve(
        "calibration",
        "Calibration error",
        "share of 1",
        "Expected distance between confidence and accuracy: of raw logits, and with the temperature that is stored.",
        {
            "val.ece": "raw logits",
            "val.calibrated_ece": "with temperature",
            "val_ema.calibrated_ece": "EMA, with temperature",
        },
        lowest_is_best=True,
    ),
    Curve("lr", "Learning rate", "learning rate", "At the end of each epoch.", {"train.lr": "learning rate"}),
    Curve(
        "loss-scale",
        "Loss scale",
        "factor",
        "With FP16 the loss is multiplied by this factor; it falls when a gradient overflows.",
        {"train.grad_scale": "loss scale"},
        is_log=True,
    ),
    Curve(
        "skipped-steps",
        "Skipped steps",
        "steps",
        "Steps of each epoch without an update, because a gradient was not finite.",
        {"train.skipped_steps": "skipped steps"},
        lowest_is_best=True,
    ),
    Curve(
        "throughput",
        "Throughput",
        "images a second",
        "Over all processes. The distance between the lines is time that the device waits for images.",
        {
            "train.total_ips": "training",
            "train.compute_ips": "training, computation alone",
            "val.total_ips": "validation",
        },
        lowest_is_best=False,
    ),
    Curve(
        "waiting",
        "Time of a step",
        "milliseconds",
        "Mean of an epoch. Where waiting is more than a few per cent, see --workers and effnet benchmark data.",
        {"train.compute_time": "computation", "train.data_time": "waiting for images"},
        factor=1000,
        lowest_is_best=True,
    ),
    Curve(
        "latency",
        "Latency of a validation batch",
        "milliseconds",
        "Time of the forward pass: mean, 95th and 99th percentile, and maximum.",
        {
            "val.compute_latency": "mean",
            "val.compute_latency_at95": "95 %",
            "val.compute_latency_at99": "99 %",
            "val.compute_latency_at100": "maximum",
        },
        factor=1000,
        lowest_is_best=True,
    ),
    Curve(
        "memory",
        "Peak memory",
        "MiB",
        "Of the first process, since its start: the GPU's memory, or on a CPU the machine's.",
        {"train.peak_memory": "peak memory"},
        lowest_is_best=True,
    ),
)


def curves(runs: Sequence[Run]) -> list[Chart]:
    """Return the charts of all metrics that at least one run has logged."""
    return [chart for curve in _all(runs) if (chart := _chart(curve, runs)) is not None]


def _all(runs: Sequence[Run]) -> Iterator[Curve]:
    """Yield the rows of `CURVES` and, after top-1, that of each other K that the runs have."""
    for curve in CURVES:
        yield curve
        if curve.name == "top1":
            yield from (_topk(k) for k in sorted(_other_k(runs)))


def _other_k(runs: Sequence[Run]) -> set[int]:
    names = (found for run in runs for name in run.metrics if (found := _TOPK.fullmatch(name)))
    return {int(found[1]) for found in names} - {1}


def _topk(k: int) -> Curve:
    text = f"Share of the validation images with the right class among the {k} most probable ones."
    return Curve(
        f"top{k}", f"Top-{k} accuracy", "images, %", text, _validated(f"top{k}"), lowest_is_best=False
    )


def _chart(curve: Curve, runs: Sequence[Run]) -> Chart | None:
    lines = [
        _Line(run, label, [None if value is None else value * curve.factor for value in run.metrics[metric]])
        for run in runs
        for metric, label in curve.lines.items()
        if any(value is not None for value in run.metrics.get(metric, ()))
    ]
    if curve.is_log:
        lines = [line for line in lines if all(value is None or value > 0 for value in line.values)]
    if not lines or (curve.name == "skipped-steps" and not any(any(line.values) for line in lines)):
        return None
    return Chart(
        curve.name,
        curve.title,
        curve.text,
        _alternative(curve, lines, several=len(runs) > 1),
        _spec(curve, lines, runs),
        _columns(lines),
        hidden=("key",),
    )


def _columns(lines: Sequence[_Line]) -> dict[str, Column]:
    cells = [
        (epoch, line.run.name, line.label, short(value), f"k{place}")
        for place, line in enumerate(lines)
        for epoch, value in zip(line.run.epochs, line.values, strict=True)
        if value is not None
    ]
    names = ("epoch", "run", "series", "value", "key")
    return {name: list(column) for name, column in zip(names, zip(*cells, strict=True), strict=True)}


def _spec(curve: Curve, lines: Sequence[_Line], runs: Sequence[Run]) -> dict[str, Any]:
    labels = list(dict.fromkeys(line.label for line in lines))
    names = [run.name for run in runs]
    several = len(runs) > 1
    longest = max(len(line.run.epochs) for line in lines)
    encoding: dict[str, Any] = {
        "y": {
            "field": "value",
            "type": "quantitative",
            "title": curve.axis,
            "scale": {"type": "log", "base": 2} if curve.is_log else {"zero": False},
        },
        "color": {"field": "series", "type": "nominal", "title": None, "scale": colour(labels)},
    }
    if several:
        encoding["color"] = {"field": "run", "type": "nominal", "title": None, "scale": colour(names)}
    if len(labels) > 1:
        # With one run it is the colour's legend, too.
        encoding["strokeDash"] = {"field": "series", "type": "nominal", "title": None, "scale": dash(labels)}
    elif not several:
        encoding["color"]["legend"] = None
    return {
        "encoding": {
            "x": {
                "field": "epoch",
                "type": "quantitative",
                "title": "epoch",
                "scale": {"nice": False, "zero": False},
                "axis": {"tickMinStep": 1, "format": "d", "grid": False},
            }
        },
        "layer": [
            {
                "mark": {"type": "line", "point": longest <= _MARKED},
                "encoding": {**encoding, "detail": {"field": "key"}},
            },
            _hovered(lines, several),
        ],
    }


def _hovered(lines: Sequence[_Line], several: bool) -> dict[str, Any]:
    """Return a rule at the epoch under the pointer, which tells the values of all lines."""
    told: list[dict[str, Any]] = [{"field": "epoch", "type": "quantitative", "title": "epoch", "format": "d"}]
    for place, line in enumerate(lines):
        label = f"{line.run.name}: {line.label}" if several else line.label
        told.append({"field": f"k{place}", "type": "quantitative", "title": label, "format": ".5~g"})
    return {
        "transform": [{"pivot": "key", "value": "value", "groupby": ["epoch"]}],
        "mark": "rule",
        "encoding": {
            "opacity": {"condition": {"param": "hovered", "value": 0.4, "empty": False}, "value": 0},
            "tooltip": told,
        },
        "params": [
            {
                "name": "hovered",
                "select": {
                    "type": "point",
                    "fields": ["epoch"],
                    "nearest": True,
                    "on": "pointerover",
                    "clear": "pointerout",
                },
            }
        ],
    }


def _alternative(curve: Curve, lines: Sequence[_Line], several: bool) -> str:
    told = [_told(curve, line, several) for line in lines]
    return f"Line chart, {curve.title.lower()} ({curve.axis}) over epochs. {' '.join(told)}"


def _told(curve: Curve, line: _Line, several: bool) -> str:
    label = f"{line.run.name}, {line.label}" if several else line.label
    known = [
        (value, epoch) for value, epoch in zip(line.values, line.run.epochs, strict=True) if value is not None
    ]
    (first, begin), (last, end) = known[0], known[-1]
    text = f"{label}: {first:.4g} in epoch {begin}"
    if end != begin:
        text += f", {last:.4g} in epoch {end}"
    if curve.lowest_is_best is not None and len(known) > 2:
        choose, word = (min, "lowest") if curve.lowest_is_best else (max, "highest")
        value, epoch = choose(known, key=lambda pair: pair[0])
        text += f", {word} {value:.4g} in epoch {epoch}"
    return f"{text}."
