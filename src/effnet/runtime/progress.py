"""Progress bars on a terminal and in a notebook."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any

from effnet.runtime.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

_SILENT: ContextVar[bool] = ContextVar("silent", default=False)
_drawn: list["ProgressBar"] = []
"""the bar that is on the terminal, which has room for one"""


class ProgressBar:
    """A bar that is drawn inside a `with` block, if there is a terminal or a notebook to draw it on.

    Of the processes of a run only the first draws.

    Args:
        description: the work, shown before the bar.
        total: amount of work; None where it is unknown.
        done: amount that is done at the start.
        in_bytes: the amounts are bytes, shown with their rate.
        show: draw it; without, the methods do nothing.
        still: draw only when an amount changes, so that nothing runs beside a measurement.
        console: where to draw, which may print lines above the bar; by default standard error, where the bar
            disappears at the end.
    """

    def __init__(
        self,
        description: str,
        total: int | None,
        *,
        done: int = 0,
        in_bytes: bool = False,
        show: bool = True,
        still: bool = False,
        console: "Console | None" = None,
    ) -> None:
        self._bar: Progress | None = None
        shown = sys.stderr.isatty() if console is None else is_drawn(console)
        if show and shown and not _SILENT.get() and os.environ.get("RANK", "0") == "0":
            self._bar, self._still = _bar(in_bytes, total is None, still, console), still
            self._task = self._bar.add_task(printable(description), total=total, completed=done, state="")

    def __enter__(self) -> "ProgressBar":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to draw the bar, unless another one is drawn."""
        if self._bar is not None and not _drawn:
            _drawn.append(self)
            self._bar.start()

    def stop(self) -> None:
        """Draw the bar no more."""
        if self._bar is not None and self in _drawn:
            _drawn.remove(self)
            self._bar.stop()

    def advance(self, more: int) -> None:
        """Add to the amount that is done."""
        if self._bar is not None:
            self._bar.advance(self._task, more)
            self._refresh()

    def update(
        self, done: int | None = None, *, description: str | None = None, state: str | None = None
    ) -> None:
        """Replace what is shown.

        Args:
            done: amount that is done.
            description: the work, shown before the bar.
            state: text after the bar.
        """
        if self._bar is not None:
            fields: dict[str, Any] = {} if state is None else {"state": state}
            if description is not None:
                fields["description"] = printable(description)
            self._bar.update(self._task, completed=done, **fields)
            self._refresh()

    def _refresh(self) -> None:
        if self._bar is not None and self._still and self in _drawn:
            self._bar.refresh()


@contextmanager
def working(description: str, *, show: bool = True) -> Iterator[None]:
    """Show on a terminal, within the block, that something is done whose amount is not known, and for how long.

    Args:
        description: the work.
        show: draw it; without, nothing happens.
    """
    with ProgressBar(description, None, show=show):
        yield


@contextmanager
def silent(is_silent: bool = True) -> Iterator[None]:
    """Draw no bars within the block, if `is_silent`."""
    token = _SILENT.set(is_silent or _SILENT.get())
    try:
        yield
    finally:
        _SILENT.reset(token)


def is_drawn(console: "Console") -> bool:
    """Return True if a bar can be drawn on a console."""
    return console.is_terminal or in_notebook(console)


def in_notebook(console: "Console") -> bool:
    """Return True in a notebook that can draw a bar, for which rich needs ipywidgets."""
    return console.is_jupyter and find_spec("ipywidgets") is not None


def _bar(in_bytes: bool, is_open: bool, still: bool, console: "Console | None") -> "Progress":
    # Imported only where there is a terminal: it takes a tenth of a second.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amounts: tuple[ProgressColumn, ...] = (MofNCompleteColumn(),)
    if in_bytes:
        amounts = (DownloadColumn(), TransferSpeedColumn())
    what = TextColumn("{task.description}", markup=False)
    columns: tuple[ProgressColumn, ...] = (what, BarColumn(), *amounts, TimeRemainingColumn())
    if is_open and not in_bytes:
        columns = (SpinnerColumn(), what, TimeElapsedColumn())
    shown_on = Console(stderr=True) if console is None else console
    return Progress(
        *columns,
        TextColumn("{task.fields[state]}", markup=False),
        console=shown_on,
        transient=console is None,
        auto_refresh=not still,
    )
