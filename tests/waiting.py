"""Helpers for tests of processes: whether one lives, and waiting for its end."""

import time
from pathlib import Path


def lives(process: int) -> bool:
    """Return whether a process lives; one that only waits to be collected by its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def ends(process: int, within: float) -> bool:
    """Return whether a process ends within some seconds."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not lives(process):
            return True
        time.sleep(0.05)
    return False
