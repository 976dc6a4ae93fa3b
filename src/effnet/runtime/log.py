"""Log of a run: a JSON log with one object per line, and text or a progress bar on the terminal."""

import json
import math
import os
import sys
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console

from effnet.runtime.errors import UserError
from effnet.runtime.progress import ProgressBar


class RunLog:
    """Log of a run. Only the main process writes; the others' calls do nothing.

    Each line of the file is ``{"type": T, "time": seconds, "epoch": E, "step": S, "data": {name: value}}`` with T one
    of ``parameters``, ``iteration``, ``epoch``, ``event`` and ``summary``; times are seconds since 1970.

    Args:
        path: the file; None for no file.
        append: add to an existing file instead of replacing it. A torn last line is cut off.
        is_main: whether this process writes.
        after: position of the same log, of which what follows is cut off: the run writes it again.

    Attributes:
        goes_on: the file holds the lines before `after`.

    Raises:
        UserError: the file can't be written.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        append: bool = False,
        is_main: bool = True,
        after: Mapping[str, int] | None = None,
    ) -> None:
        self._is_main = is_main
        self.goes_on = False
        self._bytes = self._checksum = 0
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress: ProgressBar | None = None
        self._file: TextIO | None = None
        if path is not None and is_main:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if append and path.exists():
                    self._cut(path, after or {})
                self._file = path.open("a" if append else "w", encoding="utf-8")
            except OSError as error:
                raise UserError(f"--workspace: can't write {path}: {error.strerror}") from None

    def _cut(self, path: Path, after: Mapping[str, int]) -> None:
        content = path.read_bytes()
        start = content[: after.get("bytes", 0)]
        self.goes_on = bool(start) and self._position_of(start) == after
        kept = start if self.goes_on else content[: content.rfind(b"\n") + 1]
        os.truncate(path, len(kept))
        self._bytes, self._checksum = self._position_of(kept).values()

    @staticmethod
    def _position_of(content: bytes) -> dict[str, int]:
        return {"bytes": len(content), "crc32": zlib.crc32(content)}

    def position(self) -> dict[str, int]:
        """Return the end of the file, for `after`: its length in bytes, and a checksum of the lines before it."""
        return {"bytes": self._bytes, "crc32": self._checksum}

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_epoch()
        if self._file is not None:
            self._file.close()

    def print(self, line: str) -> None:
        """Print a line on the terminal."""
        if self._is_main:
            # Markup would swallow brackets in file names.
            self._console.print(line, markup=False)

    def record(
        self, kind: str, data: Mapping[str, Any], *, epoch: int | None = None, step: int | None = None
    ) -> None:
        """Write one line of the JSON log."""
        if self._file is not None:
            line = {"type": kind, "time": time.time(), "epoch": epoch, "step": step, "data": _plain(data)}
            text = json.dumps(line) + "\n"
            self._file.write(text)
            self._file.flush()
            encoded = text.encode()
            self._bytes, self._checksum = self._bytes + len(encoded), zlib.crc32(encoded, self._checksum)

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


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN or infinity: they become strings."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in data.items()
    }
