"""Settings of the memory allocator that avoid page faults in training on a CPU.

By default the C library returns every large block to the system when a tensor is freed, and requests it again in the
next step; the system then zeroes it page by page, which takes a large part of a step's time. Keeping freed blocks and
using huge pages avoids that (`docs/performance.md`).
"""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's <malloc.h>
_NEVER = 2**31 - 1


def use_huge_pages() -> None:
    """Let PyTorch request huge pages. Call this before the first tensor is made, when PyTorch reads the setting."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def keep_freed_memory() -> bool:
    """Keep freed memory in this process instead of returning it to the system.

    Returns:
        True if the C library supports it, as GNU's does.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
