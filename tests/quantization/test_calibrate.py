"""Ranges that calibration finds, where what follows the quantizer makes a part of them worthless."""

import math
from collections.abc import Iterator

import pytest
import torch

from effnet.data import Batch
from effnet.data.preprocessing import Preprocessing
from effnet.quantization.calibrate import calibrate
from effnet.quantization.layers import quantizers_of
from effnet.quantization.placement import SATURATED, place_quantizers, row_of
from effnet.recipe import QuantizationSettings
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes
from tests.quantization.test_layers import small

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(64, 64)


def batches() -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8, generator=generator)
    yield Batch(images, torch.zeros(16, dtype=torch.int64), torch.arange(16))


def test_ranges_end_where_a_sigmoid_is_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("efficientnet-quant-b0")
    with torch.no_grad():
        for block in (module for module in model.modules() if hasattr(module, "mul_a_quantizer")):
            block.expand.bias.uniform_(-60, 30)  # gates from closed to open, as a trained network has them
    place_quantizers(model, "onnxruntime")
    se = next(module for module in model.modules() if hasattr(module, "mul_a_quantizer"))
    x = torch.rand(4, se.squeeze.in_channels, 9, 9)
    before = torch.linspace(-60, 30, 5000)

    def outcome() -> tuple[float, dict[str, tuple[float, float]]]:
        calibrate(
            model,
            batches(),
            PREPROCESSING,
            Precision("fp32", CPU),
            Processes.alone(CPU),
            QuantizationSettings(calib_method="max"),
        )
        quantizers = quantizers_of(model)
        grids = {
            name: (quantizer.grid.low, quantizer.grid.high)
            for name, quantizer in quantizers.items()
            if quantizer.is_on and not quantizer.shape
        }
        with torch.no_grad():
            gates = se.gate_quantizer(before).sigmoid()
        return float((gates - before.sigmoid()).abs().max()), grids

    error, grids = outcome()
    gates = [ends for name, ends in grids.items() if name.endswith(".se.gate_quantizer")]
    inputs = [ends for name, ends in grids.items() if name.endswith(".act._input_quantizer")]
    step = 2 * SATURATED / 255
    assert gates
    assert all(low >= -SATURATED - step and high <= SATURATED + step for low, high in gates)
    assert all(low >= -SATURATED - step for low, _ in inputs)
    assert se(x).isfinite().all()
    # Without limits the steps are five times as wide, and so is the error of the gates.
    monkeypatch.setattr("effnet.quantization.placement.Row.within_limits", lambda row, low, high: (low, high))
    unlimited, _ = outcome()
    assert error < 0.3 * unlimited


def test_limits_change_nothing_that_counts() -> None:
    limits = row_of("layers.0.block0.se.gate_quantizer").limits
    ends = torch.tensor(limits)
    assert ends.sigmoid().tolist() == pytest.approx([0.0, 1.0], abs=0.1 / 255)
    assert torch.nn.functional.silu(ends[0]).abs() < 0.003
    assert row_of("stem.conv._input_quantizer").limits == (-math.inf, math.inf)
