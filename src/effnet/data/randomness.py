"""Random numbers by position: they depend on the seed and on their use, not on earlier draws.

Thus an epoch's order and an image's crop are the same for any number of workers and processes, and after a
resume.
"""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Uses of random numbers; streams are independent of each other."""

    ORDER = 0
    SAMPLE = 1
    MIXUP = 2
    STEP = 3
    ITEM = 4


def generator(
    stream: Stream, seed: int, epoch: int, index: int = 0, rank: int | None = None
) -> np.random.Generator:
    """Return the generator for one use: an epoch's order, an image in an epoch, a step in an epoch.

    Args:
        stream: use of the numbers.
        seed: seed of the run.
        epoch: epoch, from 0.
        index: number of the image or step.
        rank: number of the process, where each one draws its own; None where all draw the same.
    """
    own = () if rank is None else (rank,)
    return np.random.default_rng((seed, stream, epoch, index, *own))


def seed_of(stream: Stream, seed: int, epoch: int, index: int, rank: int) -> int:
    """Return a seed of 64 bits for another library's generator; the arguments are those of `generator`."""
    sequence = np.random.SeedSequence((seed, stream, epoch, index, rank))
    return int(sequence.generate_state(1, np.uint64)[0])
