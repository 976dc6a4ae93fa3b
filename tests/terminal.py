"""A command on a pseudo-terminal."""

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence

import pytest

_CONTROL = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")
_PATIENCE_S = 600.0


class FakeTerminal(io.StringIO):
    """A stream that says of itself to be a terminal."""

    def isatty(self) -> bool:
        return True


def fake_terminal(monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    """Put a terminal in the place of standard error. A fixture can't: pytest captures again before the test."""
    stream = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


class Terminal:
    """The terminal of a running command.

    Attributes:
        process: the command.
        shown: what it has written so far, with control sequences.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", end: int) -> None:
        self.process, self.shown = process, ""
        self._end = end

    def plain(self) -> str:
        """Return the output so far, without control sequences."""
        return _CONTROL.sub("", self.shown).replace("\r", "\n")

    def until(self, text: str) -> None:
        """Read until a text is shown; the command must not end before."""
        limit = time.monotonic() + _PATIENCE_S
        while text not in self.plain():
            assert time.monotonic() < limit, self.plain()
            assert self._read(), self.plain()

    def rest(self) -> int:
        """Read until the command ends; return its exit code."""
        limit = time.monotonic() + _PATIENCE_S
        while self._read():
            assert time.monotonic() < limit, self.plain()
        return self.process.wait(_PATIENCE_S)

    def _read(self) -> bool:
        """Read what is there; False at the end."""
        if not select.select([self._end], [], [], 0.5)[0]:
            return True
        try:
            more = os.read(self._end, 65536)
        except OSError:  # nobody holds the other end any more
            return False
        self.shown += more.decode(errors="replace")
        return bool(more)


@contextlib.contextmanager
def on_terminal(
    command: Sequence[str], environment: Mapping[str, str], *, columns: int = 80, lines: int = 24
) -> Iterator[Terminal]:
    """Run a command on a terminal of a size; it is killed at the end of the block if it still runs."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    settings = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        list(command),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**settings, "TERM": "xterm-256color"},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
