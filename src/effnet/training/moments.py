"""Moments at which a run writes a checkpoint within an epoch, or stops because of a signal."""

import time
from dataclasses import dataclass
from typing import NamedTuple

from effnet.runtime.agreement import Agreement
from effnet.runtime.errors import UserError
from effnet.runtime.processes import Processes
from effnet.runtime.signals import Signals

# Wishes of a process; the greatest one counts. That to stop is this number plus the signal's.
_NOTHING, _WRITE, _STOP = 0, 1, 2


@dataclass(frozen=True)
class Interval:
    """Interval between two checkpoints: steps of the optimizer or seconds; the other one is None."""

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Return the interval that ``--checkpoint-every`` names: ``500`` steps, or ``10m``, minutes.

        Raises:
            UserError: it is neither.
        """
        try:
            if text.endswith("m"):
                interval = cls(seconds=60 * float(text[:-1]))
            else:
                interval = cls(steps=int(text))
        except ValueError:
            interval = cls()
        if not 0 < (interval.steps or interval.seconds or 0) < float("inf"):
            raise UserError(
                f"--checkpoint-every {text!r}: give steps of the optimizer, such as 500, or minutes, such as 10m"
            )
        return interval


class Due(NamedTuple):
    """Duties at a moment.

    Attributes:
        checkpoint: write a checkpoint.
        signal: stop after that, as this signal asks; None to go on.
    """

    checkpoint: bool
    signal: int | None = None


class Moments:
    """Decides when a run writes a checkpoint between the ends of epochs and when it stops: alike in all processes.

    Args:
        processes: the processes of the run; each must call `look` and `written` equally often.
        signals: signals that this process receives.
        every: interval of checkpoints; None for none within epochs. The main process's clock counts.
    """

    def __init__(self, processes: Processes, signals: Signals, every: Interval | None) -> None:
        self._agreement = Agreement(processes)
        self._is_main = processes.is_main
        self._signals = signals
        self._every = every or Interval()
        self.written(0)

    def written(self, step: int) -> None:
        """Note that a checkpoint of `step` optimizer steps is there."""
        self._step, self._time = step, time.monotonic()
        # An answer still under way is to a wish from before this checkpoint.
        self._is_fresh = True

    def look(self, step: int) -> Due:
        """Return what is due after `step` optimizer steps."""
        agreed = self._agreement(self._wish())
        if agreed >= _STOP:
            self.close()
            return Due(True, agreed - _STOP)
        by_time, self._is_fresh = agreed == _WRITE and not self._is_fresh, False
        every = self._every.steps
        return Due(by_time or (every is not None and step // every > self._step // every))

    def close(self) -> None:
        """End what is under way between the processes."""
        self._agreement.last()

    def _wish(self) -> int:
        if self._signals.received is not None:
            return _STOP + self._signals.received
        seconds = self._every.seconds
        is_due = self._is_main and seconds is not None and time.monotonic() - self._time >= seconds
        return _WRITE if is_due else _NOTHING
