"""Signals that ask a run to end: SIGTERM, SIGINT, and SIGUSR1, which Slurm sends ahead of a time limit."""

import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

from effnet.runtime.children import end_with_launcher

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
GRACE_S = 6.0
"""seconds that a process has to end after a signal, where it does not defer it"""
_SAME_S = 1.0
"""Signals within this time of the first one are the same request: a launcher and a process group both pass it on."""
_RETRY_S = 0.05


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

    Outside `deferred` a signal raises where the program is, and the process ends after `GRACE_S` seconds even if it is
    in a call that does not return. A second signal ends it at once. In a forked child nothing happens.

    Args:
        raises: returns the exception to raise for a signal.
        grace: seconds until the process is ended, infinity for no limit.

    Attributes:
        received: the first signal; None before one.
    """

    def __init__(self, raises: Callable[[int], BaseException] = Interrupted, grace: float = GRACE_S) -> None:
        self.received: int | None = None
        self._raises, self._grace = raises, grace
        self._defers = self._holds = self._waits = self._ends = False
        self._process, self._main = os.getpid(), threading.main_thread().ident or 0

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note signals within the block, which must look at `received` and end soon."""
        before, self._defers = self._defers, True
        try:
            yield
        finally:
            self._defers = before

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raise nothing within the block, but soon after it."""
        before, self._holds = self._holds, True
        try:
            yield
        finally:
            self._holds = before

    def end(self) -> None:
        """Raise nothing from now on, as the process ends for a reason of its own; one that is stuck is still ended."""
        self._ends = True

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal, as `signal.signal` calls it."""
        if os.getpid() != self._process or (self.received is not None and not self._waits):
            return
        self.received = self.received or number
        # `watch` calls again while this waits.
        self._waits = not (self._defers or self._ends) and (self._holds or _in_finalizer(frame))
        if not (self._defers or self._ends or self._waits):
            raise self._raises(self.received)

    def watch(self, numbers: int) -> None:
        """End the process where its main thread can't, until the end of a pipe.

        The handler of a signal runs only when the main thread returns to Python, which a collective operation or a
        compiler may not do for minutes.

        Args:
            numbers: descriptor of the pipe, from which the number of each signal is read as a byte.
        """
        first, last, repeated = math.inf, math.inf, 0
        while True:
            ready = select.select([numbers], [], [], None if math.isinf(first) else _RETRY_S)[0]
            now = time.monotonic()
            if ready:
                read = os.read(numbers, 64)
                if not read:
                    break
                for number in filter(HANDLED.__contains__, read):
                    if repeated:
                        repeated -= 1
                    elif math.isinf(first):
                        first, last = now, now + self._grace
                    elif now - first > _SAME_S:
                        _end(number, "at once, after a second signal")
            elif now >= last:
                last = math.inf
                self._end_if_stuck()
            elif self._waits and self.received is not None:
                repeated += 1
                signal.pthread_kill(self._main, self.received)
        os.close(numbers)

    def _end_if_stuck(self) -> None:
        if not self._defers and self.received is not None:
            _end(self.received, f"did not stop within {self._grace:g} s of the signal")


def _in_finalizer(frame: FrameType | None) -> bool:
    """Return whether a frame is within a `__del__`, which would print an error and go on."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def _end(number: int, how: str) -> None:
    os.write(2, f"{Interrupted(number, how)}\n".encode())
    os._exit(128 + number)


_present: Signals | None = None


@contextmanager
def handled_signals(
    raises: Callable[[int], BaseException] = Interrupted, grace: float = GRACE_S
) -> Iterator[Signals]:
    """Handle the signals of `HANDLED` within the block; the former handlers return at its end.

    A process that `torchrun` has started is sent SIGTERM from then on when `torchrun` dies. Within another such block
    this yields that block's object; in a thread, where Python handles no signals, one that receives none.

    Args:
        raises: see `Signals`.
        grace: see `Signals`.
    """
    global _present
    if _present is not None or threading.current_thread() is not threading.main_thread():
        yield _present or Signals()
        return
    _present = signals = Signals(raises, grace)
    before = {number: signal.signal(number, signals.handle) for number in HANDLED}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    other = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=signals.watch, args=(reading,), daemon=True, name="effnet-signals").start()
    end_with_launcher()
    try:
        yield signals
    finally:
        _present = None
        signal.set_wakeup_fd(other)
        os.close(writing)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let signals end the process within the block, by the system's own handling.

    For a call of foreign code that waits without letting go of Python, in which no handler runs and no thread.
    """
    if _present is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def starting_children() -> Iterator[None]:
    """Hold signals within the block, and block them for the children that it starts: they inherit this, and keep it.

    A terminal, Slurm and `torchrun` send a signal to a whole group of processes. Those that work for another one end
    with it, not before.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        # The system may pass the signal to another thread, and Python then calls the handler all the same.
        with _present.held() if _present is not None else nullcontext():
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
