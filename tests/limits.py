"""Limits that no hostile file may exceed, for tests: a gigabyte and ten seconds, no traceback, nothing run."""

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from effnet.cli import main
from effnet.runtime.errors import UserError

MEMORY = 1 << 30  # bytes above what the process has
SECONDS = 10
SUSPICIOUS = ("Traceback", "KeyError", "TypeError", "AttributeError")


@contextmanager
def within_limits() -> Iterator[None]:
    """Fail if the block takes more processor time or memory than a hostile file may.

    Memory is what the process has in use at most, looked at every few milliseconds: a peak of the whole process would
    be that of an earlier test.
    """
    before, started = _resident(), _processor_seconds()
    most, is_over = [before], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.005):
            most[0] = max(most[0], _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
    assert _processor_seconds() - started < SECONDS
    assert most[0] - before < MEMORY


def refusal(path: Path, *arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must refuse a file; return its one line."""
    with within_limits():
        code = main(list(arguments))
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if "error:" in line]
    assert code == 2, error
    assert len(lines) == 1, error
    assert str(path) in lines[0]
    assert not any(word in error for word in SUSPICIOUS), error
    assert len(lines[0]) < 1000
    return lines[0]


@contextmanager
def refused(path: Path) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a file to be refused in one line that names it, within the limits."""
    with within_limits(), pytest.raises(UserError) as caught:
        yield caught
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 1000


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _processor_seconds() -> float:
    return time.process_time()
