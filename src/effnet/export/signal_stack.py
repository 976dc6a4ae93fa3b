"""The stack on which signal handlers run, kept from OpenVINO.

Each model that OpenVINO compiles makes the thread's signal stack its own and gives the one before back when it goes,
even if that has gone already: after two models have gone in the order in which they came, the next signal, such as that
a child process has ended, ends this one with a segmentation fault (seen with OpenVINO 2026.4).
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """POSIX's stack_t, as Linux has it."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Leave this thread's signal stack as it was; without such a function in the C library nothing is done."""
    try:
        exchange = ctypes.CDLL(None).sigaltstack
    except (AttributeError, OSError, TypeError):
        yield
        return
    before = _Stack()
    exchange(None, ctypes.byref(before))
    try:
        yield
    finally:
        exchange(ctypes.byref(before), None)
