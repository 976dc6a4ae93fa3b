"""Signals that ask a run to end: SIGTERM, SIGINT, and SIGUSR1, which Slurm sends ahead of a time limit."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Interrupted(BaseException):
    """A signal has ended the work. Not an `Exception`, so that no handler of failures swallows it.

    Args:
        number: the signal.
        state: where the work has stopped and how it goes on, for the message on the terminal.
    """

    def __init__(self, number: int, state: str = "") -> None:
        self.signal = signal.Signals(number)
        self.state = state
        super().__init__(number, state)

    def __str__(self) -> str:
        return f"stopped by {self.signal.name}{f': {self.state}' if self.state else ''}"

    @property
    def exit_code(self) -> int:
        """Exit code of the process: 128 + the signal's number, as in a shell."""
        return 128 + self.signal


class Signals:
    """Signals received by this process.

    Outside `deferred` a signal raises `Interrupted` where the program is. A second signal ends the process at once.

    Attributes:
        received: the first signal; None before one.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._defers = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note signals within the block, which must look at `received` and end soon."""
        self._defers = True
        try:
            yield
        finally:
            self._defers = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal, as `signal.signal` calls it."""
        if self.received is not None:
            os._exit(128 + number)
        self.received = number
        if not self._defers:
            raise Interrupted(number)


@contextmanager
def handled_signals() -> Iterator[Signals]:
    """Handle the signals of `HANDLED` within the block; the former handlers return at its end."""
    signals = Signals()
    before = {number: signal.signal(number, signals.handle) for number in HANDLED}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
