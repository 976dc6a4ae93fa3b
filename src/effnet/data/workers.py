"""The number of processes that load images."""

import os

MOST_WORKERS = 16


def worker_count(wanted: int | None, world_size: int = 1) -> int:
    """Return the workers of one training process: `wanted`, or its share of the cores it may use, at most 16.

    Args:
        wanted: the recipe's setting; 0 loads in the training process itself.
        world_size: processes of the run, assumed to be on this machine unless a launcher sets LOCAL_WORLD_SIZE.
    """
    if wanted is not None:
        return wanted
    return max(1, min(MOST_WORKERS, usable_cores() // local_processes(world_size)))


def local_processes(world_size: int) -> int:
    """Return the processes of a run on this machine: all, unless a launcher sets LOCAL_WORLD_SIZE."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size))


def usable_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))
