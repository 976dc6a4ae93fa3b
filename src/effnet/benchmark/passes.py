"""Timing of passes over a training set by several contenders in turns.

The clock starts after the first quarter, when nothing is left of what threads and workers had prepared ahead, and
before its turn a contender waits until the one before it has come to rest.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

_AT_REST = 0.02  # processor seconds in a tenth of a second; the system counts in hundredths


Pass = Callable[[], Iterator[int]]
"""Goes through the training set once and gives every batch's number of images"""


class Round(NamedTuple):
    """One contender's way through the set."""

    images: int
    timed: int
    """images that the seconds are of"""
    seconds: float
    processor_seconds: float


def interleaved_passes(
    passes: dict[tuple[str, str], Pass], repeats: int
) -> dict[tuple[str, str], list[Round]]:
    """Time `repeats` passes of each contender, after one that is not timed; gives the rounds of each.

    Args:
        passes: by name and augmentation.
        repeats: how often each goes through the set.
    """
    # the first time round starts the workers and fills the page cache
    quarters = {key: sum(go()) // 4 for key, go in passes.items()}
    rounds: dict[tuple[str, str], list[Round]] = {key: [] for key in passes}
    for _ in range(repeats):
        for key, go in passes.items():
            _settle()
            rounds[key].append(_timed(go(), quarters[key]))
    return rounds


def _timed(batches: Iterator[int], untimed: int) -> Round:
    """One pass, of which about the first `untimed` images only count as seen."""
    before = 0
    while before < untimed:
        before += next(batches)
    busy, start = _processor_seconds(), time.perf_counter()
    timed = sum(batches)
    return Round(before + timed, timed, time.perf_counter() - start, _processor_seconds() - busy)


def _settle(most: float = 5.0) -> None:
    """Wait, at most so many seconds, until this process and its children have stopped working."""
    deadline, busy = time.monotonic() + most, _processor_seconds()
    while time.monotonic() < deadline:
        time.sleep(0.1)
        busy, before = _processor_seconds(), busy
        if busy - before < _AT_REST:
            return


def _processor_seconds() -> float:
    """Of this process and its children; 0 where the system does not tell."""
    total, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    own = os.getpid()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(stat.parent.name) == own or int(fields[1]) == own:
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total
