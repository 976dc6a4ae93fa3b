"""Recipes of runs beside each other, and beside NVIDIA's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effnet.recipe import (
    ResolvedCompute,
    ResolvedData,
    ResolvedModel,
    ResolvedOptimizer,
    ResolvedSchedule,
    ResolvedTask,
)
from effnet.recipe.catalog import compose, names, published
from effnet.report.runs import Run
from effnet.runtime.errors import UserError
from effnet.runtime.text import printable

# NVIDIA's recipes are compared in these groups; where a run computes and what it writes is its own affair.
_COMPARED = ("model", "data", "task", "optimizer", "schedule", "compute")
_OF_THE_MACHINE = {
    "num_classes",
    "device",
    "workers",
    "prefetch",
    "gpu_affinity",
    "batch_size",
    "root",
    "check_images",
}
# Settings that follow from model, data and machine where a recipe leaves them open.
_OPEN = {
    name
    for group in (
        ResolvedModel,
        ResolvedData,
        ResolvedTask,
        ResolvedOptimizer,
        ResolvedSchedule,
        ResolvedCompute,
    )
    for name in group.__annotations__
}
_PLATFORM = "DGXA100"
_FALLBACK = "efficientnet-b0"
# What belongs to the model itself, in the recipe of another one.
_OF_THE_MODEL = {"arch", "image_size", "resize", "lr", "weight_decay"}


@dataclass(frozen=True)
class Row:
    """A setting.

    Attributes:
        group: its group.
        name: its name.
        values: its value in each run, as text.
        nvidia: its value in NVIDIA's recipe of the first run's model; empty where that leaves it open.
        differs: the runs differ in it.
        deviates: at least one run differs in it from NVIDIA's recipe.
    """

    group: str
    name: str
    values: tuple[str, ...]
    nvidia: str
    differs: bool
    deviates: bool


@dataclass(frozen=True)
class Comparison:
    """Recipes beside each other.

    Attributes:
        title: NVIDIA's recipe that the runs are compared with.
        rows: the settings, in the recipe's order.
    """

    title: str
    rows: tuple[Row, ...]

    @property
    def has_differences(self) -> bool:
        """True if the runs differ from each other."""
        return any(row.differs for row in self.rows)


def compare(runs: Sequence[Run]) -> Comparison:
    """Return the settings of runs beside each other and beside NVIDIA's published recipe of the first run's model.

    A model without one is compared with what all of NVIDIA's recipes have in common.
    """
    title, theirs = nvidia_recipe(runs[0])
    keys = dict.fromkeys(
        (group, name) for run in runs for group, values in run.recipe.items() for name in values
    )
    rows = []
    for group, name in keys:
        if group == "quantization" and not _is_quantized(runs):
            continue
        values = [run.setting(group, name) for run in runs]
        published_value = theirs.get(group, {}).get(name)
        is_compared = name in theirs.get(group, {})
        rows.append(
            Row(
                printable(group),
                printable(name),
                tuple(_shown(value) for value in values),
                _shown(published_value) if is_compared else "",
                any(not _equal(value, values[0]) for value in values),
                is_compared and any(not _equal(value, published_value) for value in values),
            )
        )
    return Comparison(title, tuple(rows))


def nvidia_recipe(run: Run) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the name of NVIDIA's recipe for a run's model, and the settings by group that it does not leave open."""
    arch, precision = run.setting("model", "arch"), run.setting("compute", "precision")
    is_known = arch in names("models")
    model = str(arch) if is_known else _FALLBACK
    of_precision = "AMP" if precision in ("fp16", "bf16") else "TF32"
    try:
        found = published(model, _PLATFORM, of_precision)
    except UserError:  # a platform that lacks the precision
        return "", {}
    recipe, _ = compose(found.layers)
    left_out = _OF_THE_MACHINE if is_known else _OF_THE_MACHINE | _OF_THE_MODEL
    values = {
        group: {
            name: value
            for name, value in members.items()
            if name not in left_out and value != "auto" and not (value is None and name in _OPEN)
        }
        for group, members in recipe.to_dict().items()
        if group in _COMPARED
    }
    if values["compute"].get("precision") == "amp":
        values["compute"]["precision"] = "fp16"  # what it is on a GPU
    title = (
        f"{model}/{_PLATFORM}/{of_precision}" if is_known else "what all of NVIDIA's recipes have in common"
    )
    return title, values


def _is_quantized(runs: Sequence[Run]) -> bool:
    return any("quant" in str(run.setting("model", "arch")) for run in runs)


def _equal(value: Any, other: Any) -> bool:
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(map(_equal, value, other))
    if isinstance(value, float) and isinstance(other, int | float):
        return abs(value - other) <= 1e-9 * max(abs(value), abs(other))
    return bool(value == other)


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(entry)}" for key, entry in value.items())
    return printable(value)
