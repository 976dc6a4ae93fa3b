"""Calibration: ranges of activations from their values on some images, ranges of weights from the weights.

Weights are then rounded, if `QuantizationSettings.rounding` says so, by `effnet.quantization.reconstruct`.
"""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from effnet.data import Batch
from effnet.data.preprocessing import Preprocessing
from effnet.quantization.histogram import BINS, Histogram, range_of, sample
from effnet.quantization.layers import quantizers_of, weighted_layers
from effnet.quantization.placement import row_of
from effnet.quantization.quantizer import Quantizer
from effnet.quantization.reconstruct import counting, reconstruct
from effnet.recipe import QuantizationSettings
from effnet.runtime.errors import UserError
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes
from effnet.runtime.progress import ProgressBar, working
from effnet.training.rates import Rates
from effnet.training.step import Normalise


class Sampler:
    """Chooses values of tensors to count; a tensor that several quantizers see is sampled once.

    Args:
        choose: returns the values to count of a tensor (N, C, ...).
    """

    def __init__(self, choose: Callable[[Tensor], Tensor]) -> None:
        self._choose = choose
        self._chosen = WeakIdKeyDictionary()

    def __call__(self, x: Tensor) -> Tensor:
        """Return the values to count of a tensor (N, C, ...)."""
        if x not in self._chosen:
            self._chosen[x] = self._choose(x)
        values: Tensor = self._chosen[x]
        return values


def ends(x: Tensor) -> Tensor:
    """Return the smallest and the largest value, (2,)."""
    return torch.stack(x.aminmax())


class HistogramCalibrator:
    """Observer of a quantizer: the histogram of its inputs."""

    def __init__(self, sampler: Sampler) -> None:
        self.histogram = Histogram()
        self._sampler = sampler

    def collect(self, x: Tensor, function: Callable[[Tensor], Tensor] | None = None) -> None:
        """Count a batch, or a monotone function of its values."""
        values = self._sampler(x)
        self.histogram.add(values if function is None else function(values))


@torch.no_grad()
def calibrate(
    model: nn.Module,
    batches: Iterator[Batch],
    preprocessing: Preprocessing,
    precision: Precision,
    processes: Processes,
    settings: QuantizationSettings,
) -> dict[str, float]:
    """Find the ranges of all quantizers that are on. The model runs in float meanwhile; its mode is restored.

    Args:
        model: quantized, on its device.
        batches: this process's images.
        preprocessing: mean and standard deviation.
        precision: arithmetic of the forward pass.
        processes: the processes that calibrate together; all find the same ranges.
        settings: method, percentile and rounding.

    Returns:
        The metrics of `Rates`, and `range_time`, the seconds spent on ranges and weights after the last batch.

    Raises:
        UserError: there was no image.
    """
    was_training = model.training
    model.eval()
    layers = {name: layer for name, layer in weighted_layers(model).items() if layer._weight_quantizer.is_on}
    for layer in layers.values():
        layer._weight_quantizer.follow(layer.weight)
    # The maximum needs all values, but no counts.
    calibrators = _attach(model, Sampler(ends if settings.calib_method == "max" else sample))
    normalise = Normalise(preprocessing).to(processes.device)
    rates = Rates(processes.device, processes.world_size)
    learns = settings.rounding == "gptq"
    with (
        counting(layers if learns else {}) as moments,
        ProgressBar("calibrating", settings.calib_batches) as progress,
    ):
        for batch in rates.over(batches):
            with rates.compute(), precision.autocast():
                model(normalise(batch.images))
            progress.advance(1)
    metrics = rates.summary()
    begun = time.perf_counter()
    with working("finding ranges"):
        _set_ranges(model, calibrators, processes, settings)
    model.train(was_training)
    if not metrics:
        raise UserError("there is no image to calibrate on; see --calib-data and --calib-batches")
    with working("rounding weights"):
        reconstruct(model, moments, processes)
    return {**metrics, "range_time": time.perf_counter() - begun}


def _set_ranges(
    model: nn.Module,
    calibrators: dict[Quantizer, HistogramCalibrator],
    processes: Processes,
    settings: QuantizationSettings,
) -> None:
    _merge([calibrator.histogram for calibrator in calibrators.values()], processes)
    for name, quantizer in quantizers_of(model).items():
        if calibrator := calibrators.get(quantizer):
            row = row_of(name)
            low, high = range_of(
                calibrator.histogram,
                settings.calib_method if row.is_clipped else "max",
                percentile=settings.calib_percentile,
                symmetric=not quantizer.is_asymmetric,
            )
            quantizer.set_range(*row.within_limits(low, high))
            quantizer.observer = None
        quantizer.rounds = True


def _attach(model: nn.Module, sampler: Sampler) -> dict[Quantizer, HistogramCalibrator]:
    calibrators = {}
    for quantizer in quantizers_of(model).values():
        quantizer.rounds = False
        if quantizer.is_on and not quantizer.shape:
            calibrators[quantizer] = quantizer.observer = HistogramCalibrator(sampler)
    return calibrators


def _merge(histograms: list[Histogram], processes: Processes) -> None:
    """Sum the histograms over all processes, in each of them."""
    if processes.world_size == 1:
        return
    ends = torch.tensor([[h.reach, -h.low, h.high] for h in histograms], dtype=torch.float64)
    ends = processes.max(ends.to(processes.device)).cpu()
    for histogram, (reach, low, high) in zip(histograms, ends.tolist(), strict=True):
        histogram.grow(reach)
        histogram.low, histogram.high = -low, high
    counts = torch.stack([histogram.counts.to(processes.device) for histogram in histograms])
    for histogram, summed in zip(histograms, processes.sum(counts).view(-1, BINS), strict=True):
        histogram.counts = summed
