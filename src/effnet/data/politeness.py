"""Work of a loader's process that leaves the cores to the training, until the training waits for it.

On a CPU, a worker that decodes takes a core in the middle of a convolution, whose other threads then wait for the one
that lost it. At the lowest priority it takes the moments in which a core is idle. A process may lower its priority but
not raise it again, which is why the lower one is that of a thread.
"""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import torch

T = TypeVar("T")

_LOWEST = 19
_waiting: torch.Tensor | None = None
"""shared with the training process: 1 while it waits; None where work is not to be polite"""
_thread: ThreadPoolExecutor | None = None


def begin(waiting: torch.Tensor | None) -> None:
    """Prepare a worker process.

    Args:
        waiting: int64 scalar in shared memory, 1 while the training process waits for data; None to do without.
    """
    global _waiting, _thread
    # Elsewhere a priority is that of a process.
    _waiting = waiting if sys.platform == "linux" else None
    _thread = None if _waiting is None else ThreadPoolExecutor(1, initializer=_lower)


def _lower() -> None:
    with suppress(OSError):  # a system may forbid it, and images are prepared all the same
        os.nice(_LOWEST)


def politely(call: Callable[[], T]) -> T:
    """Return what a call returns, which runs at the lowest priority if the training process does not wait."""
    if _waiting is None or _thread is None or _waiting.item():
        return call()
    return _thread.submit(call).result()
