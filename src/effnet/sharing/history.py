"""A run, as far as a pushed model tells of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effnet.recipe import Recipe, settings
from effnet.runtime.errors import UserError
from effnet.runtime.log import read_records
from effnet.training.resume import inherited_settings
from effnet.weights.files import read_torch_file
from effnet.weights.hub import is_hub_name

# Of the metrics of an epoch, those that say how fast it was, not how good.
_SPEED = ("_ips", "_time", "latency", "latency_at95", "latency_at99", "latency_at100", ".images")
_START = ("pretrained", "pretrained_source", "pretrained_from_file")


@dataclass(frozen=True)
class History:
    """A run, as far as it may be shown to anybody.

    Attributes:
        metrics: of the validation of the pushed weights, by name without its prefix, such as ``top1`` (percent).
        images: images that they were computed on; None where that is not known.
        epoch: epochs that the weights were trained for; None where that is not known.
        settings: settings by group that are not the defaults and name no file of the run's machine.
        curve: ``train.loss``, ``val.loss`` and so on of every epoch of the log, in order.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    images: int | None = None
    epoch: int | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    curve: tuple[Mapping[str, float], ...] = ()


def read_history(checkpoint: Path, *, ema: bool) -> History:
    """Return the history of the run that wrote a checkpoint; an empty one for a file that only holds weights.

    Args:
        checkpoint: its log is looked for beside it.
        ema: the metrics are those of the averaged weights.

    Raises:
        UserError: the file can't be read.
    """
    if checkpoint.suffix == ".safetensors":
        return History()
    content = read_torch_file(checkpoint)
    recipe = content.get("recipe") if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping) or not isinstance(recipe, Mapping):
        return History()
    metrics = {name: value for name, value in _mapping(content, "metrics").items() if _is_number(value)}
    prefix = "val_ema." if ema else "val."
    epoch = content.get("epoch")
    return History(
        metrics={
            name.removeprefix(prefix): float(value)
            for name, value in metrics.items()
            if name.startswith(prefix) and not name.endswith(_SPEED)
        },
        images=int(metrics[f"{prefix}images"]) if f"{prefix}images" in metrics else None,
        epoch=epoch if isinstance(epoch, int) else None,
        settings=shown_settings(checkpoint, recipe),
        curve=tuple(record["data"] for record in read_records(_log(checkpoint, recipe), "epoch")),
    )


def _mapping(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = content.get(name)
    return value if isinstance(value, Mapping) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _log(checkpoint: Path, recipe: Mapping[str, Any]) -> Path:
    name = _mapping(recipe, "run").get("report_file")
    # A name from a file of unknown origin, which must not lead elsewhere.
    return checkpoint.parent / (
        Path(name).name if isinstance(name, str) and Path(name).name else "report.json"
    )


def shown_settings(checkpoint: Path, groups: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings by group of a checkpoint's run that anybody may see and that `--recipe` reads.

    Left out are defaults, where the run computed and what it wrote, and texts that name a file or a folder.

    Args:
        checkpoint: the file.
        groups: its recipe.
    """
    try:
        values = inherited_settings(checkpoint)
        start = _mapping(groups, "model")
        values |= {name: start[name] for name in _START if start.get(name)}
        given = Recipe().replace(values).to_dict()
    except UserError:  # of another version: nothing is told of it
        return {}
    defaults = Recipe().to_dict()
    shown: dict[str, dict[str, Any]] = {}
    for group, _, leaf in settings():
        value = given[group][leaf.name]
        if value != defaults[group][leaf.name] and not _is_private(leaf.metadata.get("metavar"), value):
            shown.setdefault(group, {})[leaf.name] = value
    return shown


def _is_private(metavar: object, value: object) -> bool:
    """Return True for a value that names something on the run's machine."""
    texts = [
        text for text in (value if isinstance(value, list | tuple) else [value]) if isinstance(text, str)
    ]
    if all(is_hub_name(text) for text in texts):
        return False
    names_file = isinstance(metavar, str) and any(
        word in metavar for word in ("FILE", "DIR", "PATH", "FOLDER")
    )
    return names_file or any("/" in text or "\\" in text for text in texts)
