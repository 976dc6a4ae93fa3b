"""Candidates take turns on one batch, for a limited time."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

ROUNDS, FEWEST = 9, 3
"""rounds, and those that are run however long they take"""
MOST_SECONDS = 5.0
_TURN = 0.1  # seconds
_BEHIND = 1.5  # times the best one's time: left out after the fewest rounds
_NOISY = 0.15


@dataclass(frozen=True)
class Race:
    """Times of the candidates.

    Attributes:
        seconds: median time of a step by candidate, the fastest first.
        spread: distance between the quartiles of the rounds relative to their median; the larger one of the two
            fastest.
    """

    seconds: Mapping[str, float]
    spread: float

    @property
    def best(self) -> str:
        """The fastest candidate."""
        return next(iter(self.seconds))

    @property
    def is_clear(self) -> bool:
        """True if the times hardly vary, or less than the fastest is ahead."""
        first, *others = self.seconds.values()
        return self.spread <= _NOISY or (bool(others) and others[0] / first - 1 > self.spread)


def fewest_seconds(candidates: int, step: float) -> float:
    """Return about the time of the shortest race.

    Args:
        candidates: their number.
        step: seconds of one step of one of them.
    """
    return FEWEST * candidates * 2 * step


def race(
    steps: Mapping[str, Callable[[], object]],
    seconds: float = MOST_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Race:
    """Time each candidate's step in interleaved rounds.

    Each turn begins with an untimed step, while the threads of the one before go to sleep. After the fewest rounds,
    candidates that are far behind are left out.

    Args:
        steps: a step of each candidate, which has been warmed up.
        seconds: time for all of it.
        clock: returns seconds.
    """
    begun = clock()
    times: dict[str, list[float]] = {name: [] for name in steps}
    running = list(steps)
    turn = min(_TURN, seconds / (ROUNDS * len(steps)))
    for number in range(ROUNDS):
        if number >= FEWEST:
            best = min(statistics.median(times[name]) for name in running)
            running = [name for name in running if statistics.median(times[name]) <= _BEHIND * best]
            if clock() - begun > seconds or len(running) == 1:
                break
        for name in running:
            times[name].append(_turn(steps[name], turn, clock))
    medians = {name: statistics.median(own) for name, own in times.items()}
    ordered = sorted(medians, key=lambda name: medians[name])
    return Race({name: medians[name] for name in ordered}, max(spread(times[name]) for name in ordered[:2]))


def _turn(step: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    """Return the mean time of a step in a turn of about `seconds`."""
    begun = clock()
    step()
    count = max(1, math.floor(seconds / max(clock() - begun, 1e-6)))
    begun = clock()
    for _ in range(count):
        step()
    return (clock() - begun) / count


def spread(times: Sequence[float]) -> float:
    """Return the distance between the quartiles of the rounds' times or rates, relative to their median."""
    low, middle, high = statistics.quantiles(times, n=4, method="inclusive")
    return (high - low) / middle if middle > 0 else 0.0
