"""Runs followed on a terminal, by their logs."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from effnet.report.runs import Run, read_runs
from effnet.report.sparkline import ASCII, BLOCKS
from effnet.report.terminal import ROWS, State, duration, epochs_of, steps_of, view, view_without_log
from effnet.runtime.errors import UserError
from effnet.runtime.lock import Holder, here, holder
from effnet.runtime.signals import Interrupted
from effnet.runtime.text import printable

if TYPE_CHECKING:
    from rich.console import Console

_SILENT_S = 600.0
"""seconds without a line after which a run that can't be seen from here counts as silent"""
_PLAIN_S = 60.0
"""seconds after which a run that logs nothing is told again, where there is no terminal"""


@dataclass(frozen=True)
class Watched:
    """A run and how it is, or the reason why there is nothing to see yet.

    Attributes:
        place: as it was named.
        run: the run; None where it has no log yet.
        state: how it is.
        text: the same in words, with what to do.
    """

    place: str
    run: Run | None
    state: State
    text: str

    @property
    def is_over(self) -> bool:
        """True if it logs no more."""
        return self.state in ("finished", "stopped")


def look_at(places: Sequence[str], *, wait: bool) -> list[Watched]:
    """Return the runs as they are now.

    Args:
        places: folders of runs, or logs.
        wait: take a place without a log as a run that has not begun yet.

    Raises:
        UserError: a place without a log, unless `wait` is set.
    """
    found = []
    for place in places:
        try:
            (run,) = read_runs([place], may_begin=True)
        except UserError as error:
            if not wait:
                raise
            found.append(Watched(place, None, "running", f"waiting for its log ({error})"))
            continue
        state, text = state_of(run, holder(run.folder), time.time() - run.log.stat().st_mtime)
        found.append(Watched(place, run, state, text))
    return found


def state_of(run: Run, held: Holder | None, age: float) -> tuple[State, str]:
    """Return how a run is, and the same in words.

    Args:
        run: the run.
        held: the process that holds or held its workspace.
        age: seconds since the log's last line.
    """
    if run.is_finished:
        return "finished", f"finished after {_epochs(run)}, {duration(run.seconds)}"
    where = _where(run)
    if held is not None and held.lives:
        return "running", f"running, {where}"
    since = f"last line {duration(age)} ago"
    on_another = held is not None and held.host != here()
    if held is not None and not on_another:
        what = f"killed: process {held.process} ended without a word in {where}, {since}"
    elif held is None:
        what = f"stopped before its end, in {where}, {since}"
    elif age < _SILENT_S:
        # Not every file system shows the locks of other machines.
        return "running", f"running on {held.host}, {where}"
    else:
        return "silent", f"silent in {where}, {since}: look at process {held.process} on {held.host}"
    return "stopped", f"{what}; its command with --resume auto goes on from the last checkpoint"


def _epochs(run: Run) -> str:
    count = run.epochs[-1] if run.epochs else 0
    return f"{count} epoch{'' if count == 1 else 's'}"


def _where(run: Run) -> str:
    epochs, steps = epochs_of(run), steps_of(run)
    done = run.epochs[-1] if run.epochs else 0
    of_epochs = f"/{epochs}" if epochs else ""
    if run.position is not None and run.position[0] > done:
        return f"epoch {run.position[0]}{of_epochs} step {run.position[1]}{f'/{steps}' if steps else ''}"
    if epochs is not None and done >= epochs:
        return f"epoch {done}{of_epochs}, its end"
    return f"epoch {done + 1}{of_epochs}, its beginning"


def show_once(places: Sequence[str]) -> int:
    """Print the runs as they are; return 1 if one of them has stopped before its end, else 0."""
    watched = look_at(places, wait=False)
    console = _console()
    for line in _lines(watched, console.width, _levels()):
        console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
    return _code(watched)


def follow(places: Sequence[str], *, seconds: float, wait: Callable[[float], object] = time.sleep) -> int:
    """Show the runs until all of them have ended, or until Ctrl-C.

    On a terminal the view is drawn again and again in place; elsewhere each epoch gets a line.

    Args:
        places: folders of runs, or logs, which need not be there yet.
        seconds: between two looks.
        wait: called with these seconds.

    Returns:
        1 if a run has stopped before its end, else 0.
    """
    console = _console()
    try:
        return _draw(places, console, seconds, wait) if console.is_terminal else _tell(places, seconds, wait)
    except (Interrupted, KeyboardInterrupt):
        return 0  # the runs go on


def _draw(places: Sequence[str], console: "Console", seconds: float, wait: Callable[[float], object]) -> int:
    from rich.live import Live
    from rich.text import Text

    levels = _levels()  # before `Live` puts a stream of its own, without an encoding, in the place of stdout
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            watched = look_at(places, wait=True)
            lines = list(_lines(watched, console.width, levels))
            live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)
            if all(entry.is_over for entry in watched):
                return _code(watched)
            wait(seconds)


def _tell(places: Sequence[str], seconds: float, wait: Callable[[float], object]) -> int:
    told: dict[str, object] = {}
    while True:
        watched = look_at(places, wait=True)
        for entry in watched:
            run = entry.run
            epoch = run.epochs[-1] if run is not None and run.epochs else 0
            state = (epoch, entry.state, run is None)
            if told.get(entry.place) != state:
                told[entry.place] = state
                print(_line(entry), flush=True)
        if all(entry.is_over for entry in watched):
            return _code(watched)
        wait(seconds)


def _line(entry: Watched) -> str:
    if entry.run is None:
        return printable(f"{entry.place}: {entry.text}")
    values = [
        f"{row.label} {row.form.format(row.factor * last)}"
        for row in ROWS
        if (last := entry.run.last(row.metric)) is not None
    ]
    return printable("; ".join([f"{entry.run.name}: {entry.text}", ", ".join(values)]).rstrip("; "))


def _lines(watched: Sequence[Watched], width: int, levels: str) -> Iterator[str]:
    for number, entry in enumerate(watched):
        if number:
            yield ""
        if entry.run is None:
            yield from view_without_log(entry.place, entry.text, width=width)
        else:
            yield from view(entry.run, entry.state, entry.text, width=width, levels=levels)


def _levels() -> str:
    """Return the characters of curves that the standard output can show."""
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def _code(watched: Sequence[Watched]) -> int:
    return int(any(entry.state == "stopped" for entry in watched))


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)
