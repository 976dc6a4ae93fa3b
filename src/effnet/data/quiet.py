"""Silence for warnings of image libraries, in several threads at once."""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_lock = threading.Lock()
_inside = 0
_filters = ExitStack()


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings in the block.

    The filters of `warnings` belong to the process: where blocks of several threads overlap, the first to enter changes
    them and the last to leave restores them.
    """
    global _inside
    with _lock:
        if not _inside:
            _filters.enter_context(warnings.catch_warnings(action="ignore"))
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _filters.close()


def _forget() -> None:
    """Restore the filters in a forked process, in which no other thread will leave its block."""
    global _lock, _inside
    _lock, _inside = threading.Lock(), 0
    _filters.close()


os.register_at_fork(after_in_child=_forget)
