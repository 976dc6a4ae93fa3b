"""Log of a run: a JSON log with one object per line, and text or a progress bar on the terminal."""

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console

from effnet.runtime.errors import UserError
from effnet.runtime.progress import ProgressBar
from effnet.runtime.text import printable, to_json


class RunLog:
    """Log of a run. Only the main process writes; the others' calls do nothing.

    Each line of the file is ``{"type": T, "time": seconds, "epoch": E, "step": S, "data": {name: value}}`` with T one
    of ``parameters``, ``iteration``, ``epoch``, ``event`` and ``summary``; times are seconds since 1970.

    Args:
        path: the file; None for no file.
        append: add to an existing file instead of replacing it.
        is_main: whether this process writes.

    Raises:
        UserError: the file can't be written.
    """

    def __init__(self, path: Path | None, *, append: bool = False, is_main: bool = True) -> None:
        self._is_main = is_main
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress: ProgressBar | None = None
        self._file: TextIO | None = None
        if path is not None and is_main:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("a" if append else "w", encoding="utf-8")
            except OSError as error:
                raise UserError(f"--workspace: can't write {path}: {error.strerror}") from None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_epoch()
        if self._file is not None:
            self._file.close()

    def print(self, line: str) -> None:
        """Print a line on the terminal; what the terminal would obey in it is escaped."""
        if self._is_main:
            # Markup would swallow brackets in file names, and a name such as :cat: is no picture.
            self._console.print(printable(line), markup=False, emoji=False)

    def record(
        self, kind: str, data: Mapping[str, Any], *, epoch: int | None = None, step: int | None = None
    ) -> None:
        """Write one line of the JSON log."""
        if self._file is not None:
            line = {"type": kind, "time": time.time(), "epoch": epoch, "step": step, "data": dict(data)}
            self._file.write(to_json(line) + "\n")
            self._file.flush()

    def begin_epoch(self, epoch: int, epochs: int, steps: int) -> None:
        """Start a progress bar for an epoch's steps, on a terminal."""
        if self._is_main and sys.stdout.isatty():
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
