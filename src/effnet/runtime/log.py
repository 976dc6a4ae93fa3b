"""Log of a run: a JSON log with one object per line, and text or a progress bar on the terminal."""

import json
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from effnet.runtime.disk import DISK_ERRORS, DiskError
from effnet.runtime.lines import LineFile
from effnet.runtime.progress import ProgressBar, in_notebook
from effnet.runtime.text import printable, to_json

if TYPE_CHECKING:
    from torch import Tensor


class Follower(Protocol):
    """A reader of a log while it is written. Its methods return at once and raise nothing.

    Attributes:
        wants_pictures: it asks for training images.
    """

    wants_pictures: bool

    def record(self, line: Mapping[str, Any]) -> None:
        """Take a line as it is written to the file."""

    def pictures(self, images: "Tensor") -> None:
        """Take some training images after augmentation, uint8 (N, 3, H, W) on any device."""


class RunLog:
    """Log of a run. Only the main process writes; the others' calls do nothing.

    Each line of the file is ``{"type": T, "time": seconds, "epoch": E, "step": S, "data": {name: value}}`` with T one
    of ``parameters``, ``iteration``, ``epoch``, ``event`` and ``summary``; times are seconds since 1970. Lines that its
    disk does not take are kept, and written later (`LineFile`).

    Args:
        path: the file; None for no file.
        append: add to an existing file instead of replacing it. A torn last line is cut off.
        is_main: whether this process writes.
        after: position of the same log, of which what follows is cut off: the run writes it again.
        quiet: print nothing; the file is written all the same.

    Attributes:
        follower: gets what the main process writes; None for nobody.

    Raises:
        DiskError: the file can't be opened; at the end of the `with` block, lines are lost.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        append: bool = False,
        is_main: bool = True,
        after: Mapping[str, int] | None = None,
        quiet: bool = False,
    ) -> None:
        self._shows = is_main and not quiet
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress: ProgressBar | None = None
        self.follower: Follower | None = None
        self._file: LineFile | None = None
        if path is not None and is_main:
            self._file = LineFile(path, append=append, after=after)

    @property
    def goes_on(self) -> bool:
        """True if the file holds the lines before `after`."""
        return self._file is not None and self._file.goes_on

    def position(self) -> dict[str, int]:
        """Return the end of the log, for `after`."""
        return {"bytes": 0, "crc32": 0} if self._file is None else self._file.position()

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_epoch()
        if self._file is not None:
            # An error that ends the run is told instead of the lines that are lost with it.
            with suppress(DiskError) if error is not None else nullcontext():
                self._file.close()

    def print(self, line: str) -> None:
        """Print a line on the terminal; what the terminal would obey in it is escaped."""
        if self._shows:
            try:
                # Markup would swallow brackets in file names, and a name such as :cat: is no picture.
                self._console.print(printable(line), markup=False, emoji=False)
            except OSError as error:  # redirected to a file on a full disk
                if error.errno not in DISK_ERRORS:
                    raise

    def record(
        self, kind: str, data: Mapping[str, Any], *, epoch: int | None = None, step: int | None = None
    ) -> None:
        """Write one line of the JSON log."""
        if self._file is None and self.follower is None:
            return
        line = {"type": kind, "time": time.time(), "epoch": epoch, "step": step, "data": dict(data)}
        if self._file is not None:
            self._file.write(to_json(line))
        if self.follower is not None:
            self.follower.record(line)

    def begin_epoch(self, epoch: int, epochs: int, steps: int) -> None:
        """Start a progress bar for an epoch's steps, on a terminal and in a notebook."""
        if self._shows and (sys.stdout.isatty() or in_notebook(self._console)):
            self._progress = ProgressBar(f"epoch {epoch + 1}/{epochs}", steps, console=self._console)
            self._progress.start()

    def iteration(self, data: Mapping[str, float], *, epoch: int, step: int, steps: int) -> None:
        """Record a step of `steps` and show it."""
        self.record("iteration", data, epoch=epoch, step=step)
        rate = data.get("train.total_ips", 0.0)
        state = f"loss {data['train.loss']:.4f}  lr {data['train.lr']:.3g}  {rate:.0f} images/s"
        if self._progress is not None:
            self._progress.update(step, state=state)
        else:
            self.print(f"epoch {epoch + 1} step {step}/{steps}  {state}")

    def bad_images(self, split: str, reasons: Mapping[str, str]) -> None:
        """Report images that were left out, by file, with what is wrong with each."""
        for name, reason in reasons.items():
            self.print(f"{split}: left out {name}: {reason}")
        self.record("event", {"event": "bad images", "split": split, "images": dict(reasons)})

    def end_epoch(self) -> None:
        """Stop the progress bar."""
        if self._progress is not None:
            with suppress(OSError):  # the terminal may be gone
                self._progress.stop()
            self._progress = None


def read_records(path: Path, *kinds: str) -> list[dict[str, Any]]:
    """Return the records of some kinds in a log, in order; none without a file.

    A line that is not one JSON object, such as the last one of a run that was killed or still writes, is left out.

    Args:
        path: the log.
        kinds: types of `RunLog`.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [record for record in map(_parsed, lines) if record.get("type") in kinds]


def _parsed(line: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
