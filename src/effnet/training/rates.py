"""Times and rates of a pass over the data, under the names of NVIDIA's README."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean, harmonic_mean

import numpy as np
import torch

from effnet.data import Batch
from effnet.runtime.memory import peak_memory


class Stopwatch:
    """Time of the device's work in each step, measured without waiting for it.

    On a GPU an event is recorded at both ends of a step and read when `seconds` is called; on a CPU the clock is.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds: list[float] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """Measure the work started inside."""
        if self._on_gpu:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            yield
            end.record()
            self._events.append((start, end))
        else:
            begun = time.perf_counter()
            yield
            self._seconds.append(time.perf_counter() - begun)

    def seconds(self) -> list[float]:
        """Return the seconds of every step so far; waits for the last one."""
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds += [start.elapsed_time(end) / 1000 for start, end in self._events]
            self._events.clear()
        return self._seconds


class Rates:
    """Times of a pass over the data: the wait for each batch, the computation on it, and the whole.

    Args:
        device: where the computation runs.
        world_size: processes that do the same, this one included; rates count the images of all.
    """

    def __init__(self, device: torch.device, world_size: int = 1) -> None:
        self._stopwatch = Stopwatch(device)
        self._world_size = world_size
        self._images: list[int] = []
        self._waits: list[float] = []
        self._begun = self._window_begun = time.perf_counter()
        self._window_step = 0

    def over(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches, and measure the wait for each one."""
        while True:
            begun = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self._waits.append(time.perf_counter() - begun)
            self._images.append(len(batch.targets))
            yield batch

    @contextmanager
    def compute(self) -> Iterator[None]:
        """Measure the work on a batch."""
        with self._stopwatch.step():
            yield

    def window(self) -> dict[str, float]:
        """Return the metrics since the last call, as in `summary`."""
        metrics = self._metrics(self._window_step, self._window_begun)
        self._window_step = len(self._images)
        self._window_begun = time.perf_counter()
        return metrics

    def summary(self) -> dict[str, float]:
        """Return the metrics of the whole pass; waits for the device.

        Returns:
            `total_ips` and `compute_ips` in images a second over all processes, `data_time` and `compute_time` in
            seconds a step, and `compute_latency` with its 95th and 99th percentile and its maximum (`at100`) in
            seconds a step; nothing before the first step.
        """
        return self._metrics(0, self._begun)

    def _metrics(self, first_step: int, begun: float) -> dict[str, float]:
        seconds = np.array(self._stopwatch.seconds()[first_step:])
        if not len(seconds):
            return {}
        images = sum(self._images[first_step:]) * self._world_size
        return {
            "total_ips": images / (time.perf_counter() - begun),
            "compute_ips": images / float(seconds.sum()),
            "data_time": float(np.mean(self._waits[first_step:])),
            "compute_time": float(seconds.mean()),
            "compute_latency": float(seconds.mean()),
            "compute_latency_at95": float(np.percentile(seconds, 95)),
            "compute_latency_at99": float(np.percentile(seconds, 99)),
            "compute_latency_at100": float(seconds.max()),
        }


def peak_memory_of(device: torch.device) -> float:
    """Return the most memory that this process has held at once, in MiB: the GPU's, or on a CPU the machine's."""
    held = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
    return held / 2**20


def over_epochs(epochs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the metrics of a whole run from those of its epochs, which all have the same number of steps.

    Args:
        epochs: metrics by name, such as `train.total_ips`, of each epoch.

    Returns:
        Rates `*_ips` over the time of all epochs, that is their harmonic mean; the largest `*_at100`; the mean of
        times and other latencies; the last epoch's value of all else, such as losses and accuracies. Empty without
        epochs.
    """
    names = epochs[-1] if epochs else {}
    return {name: _over_epochs(name, [epoch[name] for epoch in epochs if name in epoch]) for name in names}


def _over_epochs(name: str, values: list[float]) -> float:
    if name.endswith("_ips"):
        return harmonic_mean(values)
    if name.endswith("_at100"):
        return max(values)
    if name.endswith("_time") or "_latency" in name:
        return fmean(values)
    return values[-1]
