"""Histograms and ranges against NumPy, modelopt's own calibrator, and a search through all ranges."""

import numpy as np
import pytest
import torch
from torch import Tensor

from effnet.quantization.histogram import BINS, Histogram, Method, range_of, sample


def silu_outputs(count: int = 200_000) -> Tensor:
    return torch.nn.functional.silu(2 * torch.randn(count, generator=torch.Generator().manual_seed(0)))


def gathered(*parts: Tensor) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part)
    return histogram


def test_neither_order_nor_batches_matter() -> None:
    values = silu_outputs(60_000)
    parts = [values[:100], values[100:20_000] * 5, values[20_000:]]
    one, other = gathered(*parts), gathered(*reversed(parts))
    whole = gathered(torch.cat(parts))
    assert one.reach == other.reach == whole.reach
    assert (one.low, one.high) == (whole.low, whole.high)
    assert torch.equal(one.counts, whole.counts)
    assert torch.equal(other.counts, whole.counts)
    assert int(whole.counts.sum()) == 60_000


def test_counts_are_numpy_s() -> None:
    values = silu_outputs()
    histogram = gathered(values)
    expected, _ = np.histogram(values.numpy(), BINS, (-histogram.reach, histogram.reach))
    assert np.abs(histogram.counts.numpy() - expected).sum() <= 1e-4 * len(values)


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99])
def test_percentiles_are_numpy_s(percentile: float) -> None:
    values = silu_outputs()
    histogram = gathered(values)
    bin_width = 2 * histogram.reach / BINS
    _, high = range_of(histogram, "percentile", percentile=percentile, symmetric=True)
    assert abs(high - np.percentile(np.abs(values), percentile)) <= bin_width
    low, high = range_of(histogram, "percentile", percentile=percentile, symmetric=False)
    tail = (100 - percentile) / 2
    assert abs(low - np.percentile(values, tail)) <= bin_width
    assert abs(high - np.percentile(values, 100 - tail)) <= bin_width


def test_the_symmetric_percentile_is_modelopt_s() -> None:
    calib = pytest.importorskip("modelopt.torch.quantization.calib")
    values = silu_outputs()
    theirs = calib.HistogramCalibrator(8, None, False)
    theirs.collect(values)
    _, high = range_of(gathered(values), "percentile", symmetric=True)
    assert high == pytest.approx(float(theirs.compute_amax("percentile", percentile=99.99)), abs=0.01)


def test_max_covers_all() -> None:
    values = silu_outputs()
    assert range_of(gathered(values), "max", symmetric=False) == (float(values.min()), float(values.max()))


def rounding_error(values: Tensor, low: float, high: float) -> float:
    scale = (high - low) / 255
    zero_point = round(-low / scale)
    rounded = torch.fake_quantize_per_tensor_affine(values, scale, zero_point, 0, 255)
    return float((rounded - values).square().mean())


def test_mse_finds_the_best_range() -> None:
    values = torch.cat([silu_outputs(), torch.tensor([40.0])])  # one value far out
    low, high = range_of(gathered(values), "mse", symmetric=False)
    best = min(
        rounding_error(values, float(values.min()), end) for end in np.geomspace(2.0, 40.0, 100).tolist()
    )
    assert rounding_error(values, low, high) <= 1.02 * best
    assert rounding_error(values, low, high) < 0.8 * rounding_error(values, float(values.min()), 40.0)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_values_far_out_are_left_out(method: Method, symmetric: bool) -> None:
    values = torch.cat([silu_outputs(), torch.full((3,), 200.0)])
    low, high = range_of(gathered(values), method, symmetric=symmetric)
    assert 4 < high < 60
    assert low == -high if symmetric else -0.3 < low < -0.2


def test_zeros_do_not_narrow_the_range_of_least_divergence() -> None:
    """ReLU makes half of the values zero, which every range holds exactly."""
    values = (2 * torch.randn(200_000, generator=torch.Generator().manual_seed(0))).abs()
    half_zero = torch.cat([values, torch.zeros(200_000)])
    _, high = range_of(gathered(half_zero), "entropy", symmetric=False)
    assert high == pytest.approx(range_of(gathered(values), "entropy", symmetric=False)[1], rel=0.02)
    assert high > float(values.quantile(0.999))


@pytest.mark.parametrize("method", ["mse", "entropy", "percentile"])
def test_values_far_from_zero_are_covered(method: Method) -> None:
    _, high = range_of(gathered(0.5 + 0.01 * torch.rand(10_000)), method, symmetric=False)
    assert high == pytest.approx(0.51, abs=0.01)


@pytest.mark.parametrize("method", ["mse", "entropy", "percentile"])
def test_few_values_at_one_end_are_not_all_there_is(method: Method) -> None:
    gates = torch.cat([torch.full((3,), 0.04), 0.1 + 0.8 * torch.rand(3000)])
    _, high = range_of(gathered(gates), method, symmetric=False)
    assert high == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("method", ["mse", "entropy", "percentile", "max"])
def test_nothing_but_zeros(method: Method) -> None:
    assert range_of(gathered(torch.zeros(10)), method, symmetric=False) == (0.0, 0.0)


def test_samples_are_taken_from_all_channels_of_each_image() -> None:
    channels = torch.arange(96.0).view(1, 96, 1, 1)
    x = (channels + 1000 * torch.arange(3.0).view(3, 1, 1, 1)).expand(3, 96, 56, 56).contiguous()
    values = sample(x)
    assert values.shape[0] == 3
    assert 3000 <= values.shape[1] <= 5000
    for image, row in enumerate(values):
        assert torch.equal(row.unique() - 1000 * image, torch.arange(96.0))
    assert torch.equal(sample(x[1:2]), values[1:2])
    assert sample(torch.ones(2, 10)).shape == (2, 10)
