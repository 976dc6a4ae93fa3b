"""Memory: settings of the allocator that avoid page faults in training on a CPU, and errors for want of memory.

By default the C library returns every large block to the system when a tensor is freed, and requests it again in the
next step; the system then zeroes it page by page, which takes a large part of a step's time. Keeping freed blocks and
using huge pages avoids that (`docs/performance.md`).
"""

import ctypes
import errno
import os
import resource
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's <malloc.h>
_NEVER = 2**31 - 1
# What libraries say whose error has no class of its own: PyTorch on a CPU, CUDA and its libraries, engines, threads.
_SAYINGS = (
    "can't allocate memory",
    "cannot allocate memory",
    "out of memory",
    "bad allocation",
    "bad_alloc",
    "failed to allocate memory",
    "can't start new thread",
    "_alloc_failed",
)


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


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error, or the one that it was raised from, says that memory or address space ran out."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if isinstance(error, RuntimeError | OSError | ValueError):  # of which PyTorch's OutOfMemoryError is one
        text = str(error).lower()
        if "MemoryError" in str(error) or any(saying in text for saying in _SAYINGS):
            return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that processes may still take: of the machine, or of the control group if that has fewer.

    Args:
        root: root of the file system.
    """
    meminfo = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
    kilobytes = next(line.split()[1] for line in meminfo if line.startswith("MemAvailable:"))
    free = [int(kilobytes) * 1024]
    groups = root / "sys/fs/cgroup"
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            free.append(int((groups / limit).read_text()) - int((groups / used).read_text()))
        except (OSError, ValueError):  # another version of control groups, or `max`
            continue
    return max(0, min(free))


def peak_memory() -> int:
    """Return the most bytes of the machine's memory that this process has held at once."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
