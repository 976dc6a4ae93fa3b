"""Histograms of activations, and the ranges that follow from them.

Histograms are gathered on the device from an evenly spaced sample of each image's values, so that calibration runs at
about the speed of inference. Ends of the histogram are powers of two and bins are merged in pairs as they grow, so the
result depends neither on the order of images nor on their division into batches and processes.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Method = Literal["percentile", "max", "entropy", "mse"]
Array = npt.NDArray[np.float64]

BINS = 8192
SAMPLE = 4096
"""values per image that are counted"""
LEVELS = 256
# Share of the largest value at which a search for a range begins, and the candidates it tries up to 1.
_NARROWEST, _CANDIDATES = 0.05, 64
# Share of the values that the divergence's range may leave out.
_MOST_CLIPPED = 0.01


class Histogram:
    """Histogram of a tensor's values over batches, with `BINS` bins from -`reach` to `reach`.

    Attributes:
        reach: a power of two; 0 while nothing but zeros has been seen.
        counts: int64 (BINS,), on the device of the values.
        low, high: smallest and largest value.
    """

    def __init__(self) -> None:
        self.reach = 0.0
        self.counts = torch.zeros(BINS, dtype=torch.int64)
        self.low = self.high = 0.0

    def add(self, values: Tensor) -> None:
        """Count values, floating point of any shape."""
        low, high = (end.item() for end in values.aminmax())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.grow(_reach(max(-low, high)))
        if self.counts.device != values.device:
            self.counts = self.counts.to(values.device)
        if self.reach:
            # Scaling by a power of two is exact, so a value's bin is that of the wider histogram after merging.
            bins = (values.float() * (BINS / 2 / self.reach)).floor_().add_(BINS / 2).clamp_(0, BINS - 1)
            self.counts += torch.bincount(bins.to(torch.int64).flatten(), minlength=BINS)

    def grow(self, reach: float) -> None:
        """Widen the histogram to at least `reach`, a power of two or 0."""
        if not self.reach:
            self.reach = max(self.reach, reach)
        while self.reach < reach:
            pairs = self.counts.view(-1, 2).sum(1)
            self.counts = torch.zeros_like(self.counts)
            self.counts[BINS // 4 : -BINS // 4] = pairs
            self.reach *= 2


def _reach(largest: float) -> float:
    return 2.0 ** math.ceil(math.log2(largest)) if largest > 0 else 0.0


def sample(x: Tensor) -> Tensor:
    """Return about `SAMPLE` values of each image, evenly spaced over all channels.

    Args:
        x: (N, C, H, W) or (N, C).
    """
    flat = x.permute(0, 2, 3, 1).reshape(len(x), -1) if x.ndim == 4 else x.reshape(len(x), -1)
    step = max(1, flat.shape[1] // SAMPLE)
    while math.gcd(step, x.shape[1]) > 1:
        step += 1
    return flat[:, ::step].contiguous()


def range_of(
    histogram: Histogram, method: Method, *, percentile: float = 99.99, symmetric: bool
) -> tuple[float, float]:
    """Return the range that a quantizer should cover.

    Args:
        histogram: histogram of the tensor's values.
        method: ``max`` covers all; ``percentile`` leaves out the farthest values; ``mse`` minimises the mean squared
            error of rounding and clipping; ``entropy`` the Kullback-Leibler divergence of the distribution.
        percentile: share of the values that are covered, in percent; for an asymmetric range, half of the
            rest is clipped at each end.
        symmetric: the range will be used as [-m, m].

    Returns:
        (low, high) with low <= 0 <= high.
    """
    low, high = histogram.low, histogram.high
    if method == "max" or not histogram.reach:
        return low, high
    counts = histogram.counts.cpu().numpy().astype(np.float64)
    if symmetric:
        half = BINS // 2
        counts = np.concatenate([np.zeros(half), counts[half:] + counts[:half][::-1]])
        low, high = 0.0, max(-low, high)
    edges = np.linspace(-histogram.reach, histogram.reach, BINS + 1)
    if method == "entropy":
        # Zeros are exact in any range. Where ReLU makes half of the values zero, their bin would decide alone.
        counts[BINS // 2] = counts[BINS // 2 + 1]
    if method == "percentile":
        low, high = _percentiles(counts, edges, percentile, low, high, symmetric)
    else:
        low, high = _search(
            counts, edges, {"mse": _squared_error, "entropy": _divergence}[method], low, high, symmetric
        )
    return (-high, high) if symmetric else (low, high)


def _percentiles(
    counts: Array, edges: Array, percentile: float, low: float, high: float, symmetric: bool
) -> tuple[float, float]:
    left_out = (1 - percentile / 100) * counts.sum()
    if not symmetric:
        left_out /= 2
    # The outermost edges within which all but `left_out` of the values of one side lie.
    first = int(np.searchsorted(np.cumsum(counts), left_out, side="right"))
    last = BINS - int(np.searchsorted(np.cumsum(counts[::-1]), left_out, side="right"))
    return (0.0 if symmetric else max(low, min(edges[first], 0.0))), min(high, max(edges[last], 0.0))


# (counts, centers of their bins, level of each, value of each level) to the cost of a range, to be minimised
Cost = Callable[[Array, Array, Array, Array], float]


def _search(
    counts: Array, edges: Array, cost: Cost, low: float, high: float, symmetric: bool
) -> tuple[float, float]:
    """Return the range of least cost: the far end is searched first, then the near one."""
    seen = counts > 0
    counts, centers = counts[seen], ((edges[1:] + edges[:-1]) / 2)[seen]
    shares = np.geomspace(_NARROWEST, 1.0, _CANDIDATES)

    def costs(ends: list[tuple[float, float]]) -> list[float]:
        return [_cost(counts, centers, cost, -high if symmetric else low, high) for low, high in ends]

    for end in (1, 0) if high >= -low else (0, 1):
        ends = [(low, high * share) if end else (low * share, high) for share in shares]
        low, high = ends[int(np.argmin(costs(ends)))]
        if symmetric:
            break
    return low, high


def _cost(counts: Array, centers: Array, cost: Cost, low: float, high: float) -> float:
    scale = max((high - low) / (LEVELS - 1), 1e-12)
    values = (np.rint(low / scale) + np.arange(LEVELS)) * scale
    levels = np.clip(np.rint((centers - values[0]) / scale), 0, LEVELS - 1).astype(np.int64)
    return cost(counts, centers, levels, values)


def _squared_error(counts: Array, centers: Array, levels: Array, values: Array) -> float:
    return float((counts * (values[levels] - centers) ** 2).sum())


def _divergence(counts: Array, centers: Array, levels: Array, values: Array) -> float:
    """Return the divergence of the clipped distribution from one that is uniform within each level.

    A range that keeps few values is refused: they would be nearly uniform, and the divergence near zero.
    """
    inside = np.abs(centers - values[levels]) <= 0.501 * (values[1] - values[0])
    reference = counts[inside]
    if reference.sum() < (1 - _MOST_CLIPPED) * counts.sum():
        return np.inf
    index = levels[inside]
    mass, bins = np.bincount(index, reference, LEVELS), np.bincount(index, minlength=LEVELS)
    even = mass[index] / bins[index]
    for end, beyond in ((0, centers < values[0]), (-1, centers > values[-1])):
        reference[end] += counts[~inside & beyond].sum()
    p, q = reference / reference.sum(), even / even.sum()
    return float((p * np.log(p / q)).sum())
