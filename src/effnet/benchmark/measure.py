"""Interleaved timing of several implementations in one process, so that a drift of the machine's speed affects all."""

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch

from effnet.benchmark.power import PowerMeter
from effnet.runtime.progress import ProgressBar

Name = TypeVar("Name", bound=Hashable)
Step = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Measured speed of one implementation.

    Attributes:
        images_per_second: median over the rounds.
        rounds: images per second of each round.
        latencies: seconds of every step.
        watts: mean power of the device while it ran; None if it can't be read.
        peak_memory: peak of the bytes allocated on the GPU, including those that the others keep; None on a CPU.
    """

    images_per_second: float
    rounds: list[float]
    latencies: list[float]
    watts: float | None = None
    peak_memory: int | None = None

    def latency(self, percentile: float | None = None) -> float:
        """Return the seconds of a step: the mean, or a percentile."""
        return float(
            np.mean(self.latencies) if percentile is None else np.percentile(self.latencies, percentile)
        )

    def ratio_to(self, base: "Timing") -> float:
        """Return the ratio of images per second to `base`: the median over the rounds that both ran in."""
        return statistics.median(own / other for own, other in zip(self.rounds, base.rounds, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; latencies in seconds."""
        return {
            "images_per_second": self.images_per_second,
            "rounds": self.rounds,
            "steps": len(self.latencies),
            "latency": self.latency(),
            "latency_at95": self.latency(95),
            "latency_at99": self.latency(99),
            "watts": self.watts,
            "peak_memory": self.peak_memory,
        }


@dataclass
class _Record:
    """Measurements of one implementation so far."""

    steps: int
    rates: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)
    peak_memory: int = 0


def interleaved(
    implementations: Mapping[Name, Step],
    *,
    images: int,
    device: torch.device,
    rounds: int,
    steps: int,
    warmup: int,
    settle: int = 0,
    seconds: float | None = None,
) -> dict[Name, Timing]:
    """Time each implementation's step: `rounds` rounds, in each of which every implementation runs `steps` steps.

    Args:
        implementations: name to a function that does one step without waiting for the device.
        images: images in a step.
        device: device that the steps run on.
        rounds: rounds; the median over them is the result.
        steps: steps of each implementation in a round; the upper limit if `seconds` is given.
        warmup: steps of each implementation before the first round, for compilation and caches.
        settle: untimed steps at the start of each turn, while the threads of the one before go to sleep.
        seconds: length of a turn; the number of steps follows from the time of the last warm-up step.

    Returns:
        Timings by name.
    """
    power = PowerMeter(device)
    records = {}
    with ProgressBar("warming up", len(implementations) * (1 + rounds), still=True) as progress:
        for name, step in implementations.items():
            _, each = _run(step, max(warmup, 1), device)
            records[name] = _Record(
                steps if seconds is None else max(1, min(steps, math.ceil(seconds / each[-1])))
            )
            progress.advance(1)
        progress.update(description="measuring")
        for _ in range(rounds):
            for name, step in implementations.items():
                _measure(records[name], step, images, device, settle, power)
                progress.advance(1)
    return {name: _timing(record, device) for name, record in records.items()}


def _measure(
    record: _Record, step: Step, images: int, device: torch.device, settle: int, power: PowerMeter
) -> None:
    """Run the turn of one implementation."""
    _run(step, settle, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    power.start()
    seconds, each = _run(step, record.steps, device, at_end=power.stop)
    record.rates.append(images * record.steps / seconds)
    record.latencies += each
    if power.watts is not None:
        record.watts.append(power.watts)
    if device.type == "cuda":
        record.peak_memory = max(record.peak_memory, torch.cuda.max_memory_allocated(device))


def _timing(record: _Record, device: torch.device) -> Timing:
    return Timing(
        statistics.median(record.rates),
        record.rates,
        record.latencies,
        statistics.mean(record.watts) if record.watts else None,
        record.peak_memory if device.type == "cuda" else None,
    )


def _run(
    step: Step, steps: int, device: torch.device, at_end: Callable[[], None] = lambda: None
) -> tuple[float, list[float]]:
    """Return the seconds of all steps together and of each; `at_end` is called while a GPU is still at work."""
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for _ in range(steps):
            step()
            marks.append(time.perf_counter())
        at_end()
        return marks[-1] - marks[0], list(np.diff(marks))
    torch.cuda.synchronize(device)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(steps + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    at_end()
    events[-1].synchronize()
    each = [begin.elapsed_time(end) / 1000 for begin, end in pairwise(events)]
    return events[0].elapsed_time(events[-1]) / 1000, each
