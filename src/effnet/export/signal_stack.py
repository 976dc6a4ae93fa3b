"""Protection of the signal handlers' stack from OpenVINO.

Each model that OpenVINO compiles replaces the thread's signal stack and restores the earlier one when it is freed, even
if the owner of that one is freed already. After two models have been freed in the order of their creation, the next
signal, such as SIGCHLD, ends the process with a segmentation fault.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """POSIX's stack_t, as Linux has it."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Restore this thread's signal stack afterwards; do nothing if the C library has no `sigaltstack`."""
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
