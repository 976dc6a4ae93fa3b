"""Timing of passes over a training set by several input pipelines in turn.

The clock starts after the first quarter, when the batches prefetched by threads and workers are used up; each turn
starts when the processes of the pipeline before are idle.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from effnet.runtime.progress import ProgressBar

_AT_REST = 0.02  # processor seconds in a tenth of a second; the system counts in hundredths


Pass = Callable[[], Iterator[int]]
"""reads the training set once and yields the number of images of every batch"""


class Round(NamedTuple):
    """One pass of a pipeline."""

    images: int
    timed: int
    """images read while the clock ran"""
    seconds: float
    processor_seconds: float


def interleaved_passes(
    passes: dict[tuple[str, str], Pass], repeats: int
) -> dict[tuple[str, str], list[Round]]:
    """Time passes of each pipeline, after one that is not timed.

    Args:
        passes: pipelines by name and augmentation.
        repeats: timed passes of each.

    Returns:
        Rounds by name and augmentation.
    """
    # The first pass starts the workers and fills the page cache.
    rounds: dict[tuple[str, str], list[Round]] = {key: [] for key in passes}
    quarters = {}
    with ProgressBar("warming up", len(passes) * (1 + repeats), still=True) as progress:
        for key, go in passes.items():
            quarters[key] = sum(go()) // 4
            progress.advance(1)
        progress.update(description="measuring")
        for _ in range(repeats):
            for key, go in passes.items():
                _settle()
                rounds[key].append(_timed(go(), quarters[key]))
                progress.advance(1)
    return rounds


def _timed(batches: Iterator[int], untimed: int) -> Round:
    """Time one pass from about its first `untimed` images on."""
    before = 0
    while before < untimed:
        before += next(batches)
    busy, start = _processor_seconds(), time.perf_counter()
    timed = sum(batches)
    return Round(before + timed, timed, time.perf_counter() - start, _processor_seconds() - busy)


def _settle(most: float = 5.0) -> None:
    """Wait, `most` seconds at most, until this process and its children are idle."""
    deadline, busy = time.monotonic() + most, _processor_seconds()
    while time.monotonic() < deadline:
        time.sleep(0.1)
        busy, before = _processor_seconds(), busy
        if busy - before < _AT_REST:
            return


def _processor_seconds() -> float:
    """Return the processor time of this process and its children; 0 on a system without ``/proc``."""
    total, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    own = os.getpid()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        if int(stat.parent.name) == own or int(fields[1]) == own:
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total
