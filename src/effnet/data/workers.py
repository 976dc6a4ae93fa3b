"""The processes that load images."""

import os
from typing import Any

MOST_WORKERS = 16


def worker_count(wanted: int | None, world_size: int = 1) -> int:
    """Workers of one training process: `wanted`, or its share of the cores it may use, at most 16.

    Args:
        wanted: the recipe's setting; 0 loads in the training process itself.
        world_size: processes of the run, taken to be on this machine unless a launcher sets LOCAL_WORLD_SIZE.
    """
    if wanted is not None:
        return wanted
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return max(1, min(MOST_WORKERS, len(os.sched_getaffinity(0)) // local))


def as_it_is(result: Any) -> Any:
    """What a worker gives, unchanged: a DataLoader's `collate_fn`, which by default makes tensors of all it can."""
    return result
