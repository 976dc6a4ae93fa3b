"""Waiting of OpenMP's threads between the operators of PyTorch on a CPU.

By default GNU's OpenMP lets a thread spin for milliseconds until the others of its team have come. Where another
process has the core that one of them needs, all that time is lost, and both processes with it (`docs/performance.md`).
How long is good depends on whether somebody else wants the cores: alone, some 0.2 ms; beside others, next to nothing.
"""

import atexit
import os
import threading
import time
from pathlib import Path

_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
# 20 to 250 microseconds, depending on the processor: longer than most gaps between operators.
_ROUNDS = 10_000
_WINDOW_S = 1.0
"""seconds between two looks at the cores"""
_CROWDED, _ALONE = 0.15, 0.05
"""shares of the time spent in wait of a core: above the first others want the cores, below the second none does"""
_PARALLEL = 1 << 20
"""elements of a tensor that all of PyTorch's threads fill together"""


def bound_spinning() -> None:
    """Let waiting threads go to sleep soon. Call this before PyTorch is imported, which reads the setting.

    A setting in the environment holds.
    """
    if not any(name in os.environ for name in _VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = str(_ROUNDS)


def is_ours() -> bool:
    """Return whether the spinning is as `bound_spinning` sets it, and nobody else has decided about it."""
    return os.environ.get("GOMP_SPINCOUNT") == str(_ROUNDS) and "OMP_WAIT_POLICY" not in os.environ


class CoreWatch:
    """Ends spinning while other processes want the cores that this one computes on.

    GNU's OpenMP spins a hundredth as long while a process has more threads than there are cores, so a second team of
    threads, which sleeps, ends the spinning, and the end of that team brings it back. Elsewhere than on Linux, with
    another OpenMP, and where the environment decides about spinning, nothing happens.

    Args:
        waited: file with this thread's nanoseconds on a core and in wait of one (Linux's schedstat).
        on_cpu: this process computes on the cores; else nothing happens.

    Attributes:
        is_crowded: others want the cores, as of the last look.
    """

    def __init__(self, waited: Path = Path("/proc/thread-self/schedstat"), *, on_cpu: bool = True) -> None:
        self.is_crowded = False
        self._waited = waited if on_cpu and is_ours() else None
        self._end = threading.Event()
        self._team: threading.Thread | None = None
        self._last: tuple[float, float] | None = None

    def look(self) -> bool:
        """Look, at most once a second, at how long this thread has waited for a core; call this often.

        Returns:
            True if `is_crowded` has changed.
        """
        if self._waited is None:
            return False
        now = time.monotonic()
        if self._last is not None and now - self._last[0] < _WINDOW_S:
            return False
        before, self._last = self._last, (now, _seconds_waited(self._waited))
        if before is None:
            return False
        share = (self._last[1] - before[1]) / (now - before[0])
        changed = share < _ALONE if self.is_crowded else share > _CROWDED
        if changed:
            self.close() if self.is_crowded else self._add_team()
        return changed

    def close(self) -> None:
        """Let threads spin again."""
        self.is_crowded = False
        if self._team is not None:
            self._end.set()
            self._team.join()
            self._team = None
            atexit.unregister(self.close)

    def _add_team(self) -> None:
        self.is_crowded = True
        self._end.clear()
        self._team = threading.Thread(target=_be_a_team, args=(self._end,), daemon=True, name="effnet-team")
        self._team.start()
        # A thread of C++ that still runs at the interpreter's end aborts the process.
        atexit.register(self.close)


def _seconds_waited(file: Path) -> float:
    try:
        return int(file.read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # not Linux, or without these statistics
        return 0.0


def _be_a_team(end: threading.Event) -> None:
    """Have a team of OpenMP's threads until an event; a thread's team ends with the thread."""
    import torch

    torch.zeros(_PARALLEL).add_(1)
    end.wait()
