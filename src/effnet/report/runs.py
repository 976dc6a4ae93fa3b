"""Training runs, read from their logs."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effnet.runtime.errors import UserError
from effnet.runtime.log import read_records
from effnet.runtime.suggestions import suggested_path
from effnet.runtime.text import printable

LOGS = ("report.json", "raport.json")
"""logs that are looked for in the folder of a run: of `effnet train`, and of the scripts with NVIDIA's names"""
_KINDS = ("parameters", "iteration", "epoch", "event", "summary")


@dataclass(frozen=True)
class Run:
    """A training as its log tells of it.

    Attributes:
        name: short name, unlike those of the runs beside it, without characters that a terminal would obey.
        log: the file.
        recipe: resolved settings by group; empty where the log has none.
        facts: machine, versions and data.
        epochs: numbers of the finished epochs, from 1.
        metrics: value in each of `epochs` by name, such as ``val.top1``; None where it is missing or not finite.
        events: records of what happened besides, such as left out images.
        position: epoch from 1, step and metrics of the last step that the log tells of; None without any.
        is_finished: the training has ended in good order.
        seconds: from the beginning to the last record.
    """

    name: str
    log: Path
    recipe: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    epochs: tuple[int, ...] = ()
    metrics: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    position: tuple[int, int, Mapping[str, float]] | None = None
    is_finished: bool = False
    seconds: float = 0.0

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.log.parent

    def setting(self, group: str, name: str) -> Any:
        """Return a setting of the recipe; None where the log has none."""
        return self.recipe.get(group, {}).get(name)

    def last(self, metric: str) -> float | None:
        """Return a metric's last value; None without any."""
        return next((value for value in reversed(self.metrics.get(metric, ())) if value is not None), None)

    def best(self, metric: str, *, lowest: bool = False) -> tuple[float, int] | None:
        """Return a metric's highest or lowest value and the epoch that has it first; None without any."""
        pairs = zip(self.metrics.get(metric, ()), self.epochs, strict=False)
        known = [(value, epoch) for value, epoch in pairs if value is not None]
        if not known:
            return None
        return min(known, key=lambda pair: (pair[0] if lowest else -pair[0], pair[1]))


def read_runs(places: Sequence[str | Path], *, may_begin: bool = False) -> list[Run]:
    """Return the runs of folders or logs, in order.

    Args:
        places: folders of runs (``--workspace``), or logs.
        may_begin: take a run without a finished epoch, too.

    Raises:
        UserError: there is no log, it is of another kind, or no epoch is finished.
    """
    logs = [find_log(place) for place in places]
    return [read_run(log, name, may_begin=may_begin) for log, name in zip(logs, _names(logs), strict=True)]


def find_log(place: str | Path) -> Path:
    """Return the log of a run.

    Args:
        place: folder of the run, or the log.

    Raises:
        UserError: there is none.
    """
    path = Path(place)
    if path.is_dir():
        found = next((path / name for name in LOGS if (path / name).is_file()), None)
        if found is None:
            raise UserError(f"{path}: holds no {LOGS[0]}; name the --workspace of a training, or its log")
        return found
    if not path.is_file():
        raise UserError(
            f"{path}: no such file or folder{suggested_path(path)}; name the --workspace of a training, or its log"
        )
    return path


def read_run(log: Path, name: str, *, may_begin: bool = False) -> Run:
    """Return the run that a log tells of; see `read_runs`."""
    records = read_records(log, *_KINDS)
    training = _parameters(records)
    if training is None:
        raise UserError(f"{log}: is no log of a training; name the --workspace of `effnet train`, or its log")
    by_epoch = {record["epoch"]: _mapping(record, "data") for record in records if _counts(record, "epoch")}
    if not by_epoch and not may_begin:
        raise UserError(f"{log}: no epoch is finished yet; try again later, or watch the run with --live")
    recipe = _mapping(training, "recipe")
    times = [record["time"] for record in records if _is_number(record.get("time"))]
    epochs = tuple(sorted(by_epoch))
    return Run(
        name=name,
        log=log,
        recipe={group: values for group, values in recipe.items() if isinstance(values, Mapping)},
        facts={name: value for name, value in training.items() if name != "recipe"},
        epochs=tuple(epoch + 1 for epoch in epochs),
        metrics=_columns([by_epoch[epoch] for epoch in epochs]),
        events=tuple(_mapping(record, "data") for record in records if record["type"] == "event"),
        position=_position(records),
        is_finished=_is_finished(records),
        seconds=max(times) - min(times) if times else 0.0,
    )


def _parameters(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the parameters of the training; those of evaluations that share its log are others."""
    for record in records:
        data = _mapping(record, "data")
        recipe = _mapping(data, "recipe")
        if record["type"] == "parameters" and recipe and not _mapping(recipe, "run").get("evaluate"):
            return data
    return None


def _is_finished(records: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if the training has written its summary after its last step."""
    for record in reversed(records):
        if record["type"] == "summary" and "best_top1" in _mapping(record, "data"):  # an evaluation has none
            return True
        if record["type"] in ("iteration", "epoch"):
            return False
    return False


def _position(records: Sequence[Mapping[str, Any]]) -> tuple[int, int, Mapping[str, float]] | None:
    for record in reversed(records):
        if _counts(record, "iteration") and isinstance(record.get("step"), int):
            data = _mapping(record, "data")
            return record["epoch"] + 1, record["step"], {k: v for k, v in data.items() if _is_number(v)}
    return None


def _counts(record: Mapping[str, Any], kind: str) -> bool:
    epoch = record.get("epoch")
    return record["type"] == kind and isinstance(epoch, int) and not isinstance(epoch, bool) and epoch >= 0


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float | None, ...]]:
    names = dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value))
    return {name: tuple(_finite(row.get(name)) for row in rows) for name in names}


def _finite(value: object) -> float | None:
    try:
        number = float(value) if _is_number(value) else math.nan  # type: ignore[arg-type]
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mapping(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = content.get(name)
    return value if isinstance(value, Mapping) else {}


def _names(logs: Iterable[Path]) -> list[str]:
    """Return a name for each log: that of its folder, with as many parents as it takes to tell them apart."""
    paths = [log.absolute().parent if log.name in LOGS else log.absolute() for log in logs]
    names = [path.name or str(path) for path in paths]
    for depth in range(2, 5):
        names = [
            "/".join(path.parts[-depth:]) if names.count(name) > 1 else name
            for path, name in zip(paths, names, strict=True)
        ]
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[index] = printable(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names
