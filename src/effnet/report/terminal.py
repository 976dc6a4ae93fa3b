"""A run as a few lines of text: its progress, its curves, and what happened in it."""

import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from effnet.report.runs import Run
from effnet.report.sparkline import BLOCKS, sparkline
from effnet.runtime.text import printable

State = Literal["running", "finished", "stopped", "silent"]
"""``stopped``: it has ended before its last epoch; ``silent``: nobody can say from here, and the log does not grow"""

_NAME_WIDTH = 13
_VALUE_WIDTH = 12
_BEST_WIDTH = 27
_SHORTEST = 10  # columns of a curve
_EVENTS = 3


@dataclass(frozen=True)
class Row:
    """A metric of the view.

    Attributes:
        label: its name.
        metric: its name in the log.
        form: format of a value.
        best: whether its best value is shown, and which that is.
        factor: of the logged values, for another unit.
    """

    label: str
    metric: str
    form: str
    best: Literal["lowest", "highest"] | None = None
    factor: float = 1.0


ROWS = (
    Row("train loss", "train.loss", "{:.4f}", "lowest"),
    Row("val loss", "val.loss", "{:.4f}", "lowest"),
    Row("top-1", "val.top1", "{:.2f} %", "highest"),
    Row("top-5", "val.top5", "{:.2f} %", "highest"),
    Row("EMA top-1", "val_ema.top1", "{:.2f} %", "highest"),
    Row("F1", "val.f1", "{:.4f}", "highest"),
    Row("lr", "train.lr", "{:.3g}"),
    Row("loss scale", "train.grad_scale", "{:g}"),
    Row("images/s", "train.total_ips", "{:,.0f}"),
    Row("waiting", "train.data_time", "{:.1f} ms", factor=1000),
    Row("memory", "train.peak_memory", "{:,.0f} MiB"),
)
"""the registry; a run is shown without those that it does not log"""


def view(run: Run, state: State, text: str, *, width: int, levels: str = BLOCKS) -> Iterator[str]:
    """Yield the lines of a run.

    Args:
        run: the run.
        state: how it is.
        text: the same in words, with what to do.
        width: columns of the terminal.
        levels: characters of curves.
    """
    yield _cut(f"{run.name}: {_about(run)}", width)
    yield from _wrapped(text, width)
    if state == "running" and (bar := _progress(run, width, levels)):
        yield bar
    room = width - 4 - _NAME_WIDTH - _VALUE_WIDTH
    with_best = room - _BEST_WIDTH >= _SHORTEST
    for row in ROWS:
        if (line := _row(run, row, room - _BEST_WIDTH * with_best, levels, with_best)) is not None:
            yield _cut(line, width)
    for event in run.events[-_EVENTS:]:
        yield _cut(f"  event: {_event(event)}", width)


def view_without_log(place: str, text: str, *, width: int) -> Iterator[str]:
    """Yield the lines of a run that has no log yet.

    Args:
        place: where the log is to be.
        text: how the run is, in words.
        width: columns of the terminal.
    """
    yield _cut(printable(place), width)
    yield from _wrapped(text, width)


def _about(run: Run) -> str:
    processes = run.facts.get("world_size")
    parts = [
        run.setting("model", "arch"),
        run.facts.get("device"),
        f"{processes} processes" if isinstance(processes, int) and processes > 1 else None,
        f"{images:,} images" if isinstance(images := run.facts.get("train_images"), int) and images else None,
    ]
    return ", ".join(printable(part) for part in parts if part)


def _progress(run: Run, width: int, levels: str) -> str:
    """Return a bar of the training, its share and its end; empty where they are not known."""
    share = share_done(run)
    if share is None:
        return ""
    end = seconds_left(run)
    when = f"  {duration(end)} left, until {_clock(end)}" if end is not None else ""
    tail = f" {100 * share:3.0f} %{when}"
    room = max(5, width - 2 - len(tail))
    full, empty = ("█", "░") if levels == BLOCKS else ("#", ".")
    done = round(room * share)
    return f"  {full * done}{empty * (room - done)}{tail}"


def _row(run: Run, row: Row, room: int, levels: str, with_best: bool) -> str | None:
    values = run.metrics.get(row.metric, ())
    last = run.last(row.metric)
    if last is None:
        return None
    shown = row.form.format(row.factor * last)
    best = ""
    if with_best and row.best and (found := run.best(row.metric, lowest=row.best == "lowest")) is not None:
        best = f"best {row.form.format(row.factor * found[0])} in epoch {found[1]}"
    room = max(_SHORTEST, room)
    curve = sparkline(values, room, levels)
    return f"  {row.label:<{_NAME_WIDTH}}{shown:>{_VALUE_WIDTH}}  {curve:<{room}} {best}".rstrip()


def epochs_of(run: Run) -> int | None:
    """Return the epochs that a run is to have; None where its log does not tell."""
    epochs = run.setting("schedule", "epochs")
    return epochs if isinstance(epochs, int) and epochs > 0 else None


def steps_of(run: Run) -> int | None:
    """Return the steps of an epoch, a last incomplete batch left out; None where the log does not tell."""
    images, processes = run.facts.get("train_images"), run.facts.get("world_size")
    batch = run.setting("optimizer", "batch_size")
    if not (isinstance(images, int) and isinstance(processes, int) and isinstance(batch, int)):
        return None
    return images // (batch * processes) or None


def share_done(run: Run) -> float | None:
    """Return the share of a training that is done, from 0 to 1; None where its log does not tell."""
    epochs, steps = epochs_of(run), steps_of(run)
    if epochs is None:
        return None
    done = float(run.epochs[-1]) if run.epochs else 0.0
    if run.position is not None and steps is not None and run.position[0] > done:
        done = max(done, run.position[0] - 1 + min(1.0, run.position[1] / steps))
    return min(1.0, done / epochs)


def seconds_left(run: Run) -> float | None:
    """Return the seconds until a training ends, at the speed of its last steps; None where that is not known."""
    share, epochs = share_done(run), epochs_of(run)
    rate = run.last("train.total_ips")
    if run.position is not None and run.position[2].get("train.total_ips"):
        rate = run.position[2]["train.total_ips"]
    images = run.facts.get("train_images")
    if share is None or epochs is None or not rate or not isinstance(images, int):
        return None
    epoch = images / rate
    validated, validation_rate = run.facts.get("val_images"), run.last("val.total_ips")
    if isinstance(validated, int) and validation_rate:
        epoch += validated / validation_rate
    seconds = (1 - share) * epochs * epoch
    return seconds if math.isfinite(seconds) else None


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units."""
    whole = round(seconds)
    days, hours, minutes = whole // 86_400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _clock(seconds: float) -> str:
    """Return the time of day in some seconds, with the date where that is another day."""
    now = datetime.now().astimezone()
    try:
        then = now + timedelta(seconds=seconds)
    except OverflowError:
        return "later"
    return then.strftime("%H:%M" if then.date() == now.date() else "%b %d %H:%M")


def _event(event: Mapping[str, Any]) -> str:
    named = ", ".join(
        f"{name} {value}" for name, value in event.items() if name != "event" and not isinstance(value, dict)
    )
    return printable(f"{event.get('event', 'unknown')}{f' ({named})' if named else ''}")


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: max(1, width - 3)]}..."


def _wrapped(text: str, width: int) -> Iterator[str]:
    yield from textwrap.wrap(
        printable(text), width - 2, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
