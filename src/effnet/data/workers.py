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
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)) // local))
