"""Timing of several contenders in one process, interleaved, so that a drift of the machine's speed meets all."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

Step = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """What one contender took.

    Attributes:
        images_per_second: median over the rounds.
        rounds: images a second of each round.
        latencies: seconds of every step.
    """

    images_per_second: float
    rounds: list[float]
    latencies: list[float]

    def latency(self, percentile: float | None = None) -> float:
        """Seconds a step: the mean, or a percentile."""
        return float(
            np.mean(self.latencies) if percentile is None else np.percentile(self.latencies, percentile)
        )


def interleaved(
    contenders: Mapping[str, Step], *, images: int, device: torch.device, rounds: int, steps: int, warmup: int
) -> dict[str, Timing]:
    """Time each contender's step: `rounds` rounds, in each of which every contender runs `steps` steps.

    Args:
        contenders: name to a function that does one step without waiting for the device.
        images: images in a step.
        device: where the steps run.
        rounds: rounds; the median over them is the result.
        steps: steps of each contender in a round.
        warmup: steps of each contender before the first round, for compilation and caches.
    """
    for step in contenders.values():
        _run(step, warmup, device)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    latencies: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, step in contenders.items():
            seconds, each = _run(step, steps, device)
            rates[name].append(images * steps / seconds)
            latencies[name] += each
    return {name: Timing(statistics.median(rates[name]), rates[name], latencies[name]) for name in contenders}


def _run(step: Step, steps: int, device: torch.device) -> tuple[float, list[float]]:
    """Seconds of all steps together and of each."""
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for _ in range(steps):
            step()
            marks.append(time.perf_counter())
        return marks[-1] - marks[0], list(np.diff(marks))
    torch.cuda.synchronize(device)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    events[-1].synchronize()
    each = [begin.elapsed_time(end) / 1000 for begin, end in pairwise(events)]
    return events[0].elapsed_time(events[-1]) / 1000, each
