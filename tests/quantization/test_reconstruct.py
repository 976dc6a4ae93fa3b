"""Rounding of weights by what the layers return, against exhaustive search and against rounding to nearest."""

import copy
import itertools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from effnet.data import Batch
from effnet.data.preprocessing import Preprocessing
from effnet.models.layers import Conv2d, ConvBNAct
from effnet.quantization.calibrate import calibrate
from effnet.quantization.layers import QuantConv2d, QuantLinear, quantizers_of, weighted_layers
from effnet.quantization.placement import place_quantizers
from effnet.quantization.reconstruct import columns, counting, gptq, reconstruct
from effnet.recipe import QuantizationSettings
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes
from effnet.training.step import Normalise
from tests.quantization.test_layers import small

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(64, 64)


def images(count: int, seed: int) -> Tensor:
    """Smooth random images, uint8: neighbouring pixels are alike, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 9, 9, generator=generator)
    fine = nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic")
    return (255 * fine).clamp(0, 255).to(torch.uint8)


def calibrated(name: str, rounding: str) -> nn.Module:
    """A small model, calibrated with weights of 7 bits."""

    def batches() -> Iterator[Batch]:
        for seed in range(2):
            yield Batch(images(16, seed), torch.zeros(16, dtype=torch.int64), torch.arange(16))

    model = small(name)
    place_quantizers(model, "openvino", reduce_range=True)
    settings = QuantizationSettings(target="openvino", rounding=rounding)
    calibrate(model, batches(), PREPROCESSING, Precision("fp32", CPU), Processes.alone(CPU), settings)
    return model


def correlated(groups: int, fan_in: int) -> Tensor:
    """Second moments of inputs that resemble each other."""
    x = torch.randn(groups, 50, fan_in, dtype=torch.float64) + 2 * torch.randn(
        groups, 50, 1, dtype=torch.float64
    )
    return x.transpose(1, 2) @ x / 50


def error(difference: Tensor, second: Tensor) -> Tensor:
    """Mean squared error of the outputs, (groups, out)."""
    return torch.einsum("gof,gfh,goh->go", difference, second, difference)


def test_no_other_rounding_is_much_better() -> None:
    """Of all 2^8 ways to round eight weights up or down, GPTQ's is among the best; rounding to nearest is not."""
    torch.manual_seed(0)
    weight, scale = (
        torch.randn(3, 20, 8, dtype=torch.float64),
        torch.full((3, 20, 1), 0.25, dtype=torch.float64),
    )
    second = correlated(3, 8)
    rounded = gptq(weight, scale, second, 63)
    integers = rounded / scale
    torch.testing.assert_close(integers, integers.round(), rtol=0, atol=1e-9)
    ups = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)), dtype=torch.float64)
    ways = [error(((weight / scale).floor() + up) * scale - weight, second) for up in ups]
    best = torch.stack(ways).amin(0)
    nearest = error((weight / scale).round() * scale - weight, second)
    found = error(rounded - weight, second)
    assert found.mean() < 2 * best.mean()
    assert nearest.mean() > 3 * best.mean()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    weight, scale = (
        torch.randn(2, 5, 23, dtype=torch.float64),
        torch.full((2, 5, 1), 0.2, dtype=torch.float64),
    )
    second = correlated(2, 23)
    whole = gptq(weight, scale, second, 63)
    monkeypatch.setattr("effnet.quantization.reconstruct._BLOCK", 7)
    torch.testing.assert_close(gptq(weight, scale, second, 63), whole)


def test_weights_that_are_on_the_grid_stay_and_none_leaves_the_range() -> None:
    torch.manual_seed(0)
    scale = torch.full((1, 4, 1), 0.5, dtype=torch.float64)
    weight = torch.randint(-63, 64, (1, 4, 12)) * scale
    torch.testing.assert_close(gptq(weight, scale, correlated(1, 12), 63), weight)
    beyond = gptq(1.3 * weight, scale, correlated(1, 12), 63) / scale
    assert beyond.abs().max() == 63
    silent = torch.zeros(1, 12, 12, dtype=torch.float64)  # inputs that were always 0
    torch.testing.assert_close(gptq(weight + 0.1, scale, silent, 63), weight)


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(3, 8, 3, 2, 1, "same"),
        Conv2d(6, 6, 5, 1, 6, "symmetric"),
        Conv2d(6, 6, 3, 2, 6, "symmetric"),
        Conv2d(6, 4, 1, 1, 1, "symmetric"),
        nn.Linear(6, 4),
    ],
    ids=["stem", "depthwise", "depthwise-stride-2", "pointwise", "linear"],
)
def test_columns_are_what_the_weights_are_multiplied_with(layer: nn.Module) -> None:
    torch.manual_seed(0)
    is_linear = isinstance(layer, nn.Linear)
    made = QuantLinear.of(layer) if is_linear else QuantConv2d.of(layer)
    inputs = torch.randn(2, 6) if is_linear else torch.randn(2, layer.in_channels, 10, 7)
    x = columns(made, inputs)
    product = x @ layer.weight.reshape(len(x), -1, x.shape[2]).transpose(1, 2)  # (groups, samples, out)
    outputs = layer(inputs).movedim(1, -1).flatten(0, -2)
    bias = 0 if layer.bias is None else layer.bias
    torch.testing.assert_close(product.permute(1, 0, 2).flatten(1) + bias, outputs)


def test_large_inputs_are_sampled_evenly() -> None:
    layer = QuantConv2d.of(Conv2d(2, 2, 1, 1, 1, "symmetric"))
    ramp = torch.linspace(0, 1, 200).expand(4, 2, 200, 200)
    found = columns(layer, ramp)
    assert 4 * 32 < found.shape[1] < 4 * 128  # of 160,000
    torch.testing.assert_close(found.mean(), ramp.mean(), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    "name", ["efficientnet-quant-b0", "efficientnet-quant-lite0", "efficientnet-quant-v2-s"]
)
def test_the_network_s_answers_stay_closer(name: str) -> None:
    """On images that were not calibrated on; activations are not rounded, whose error both have."""
    x = Normalise(PREPROCESSING)(images(32, seed=9))

    def answers(model: nn.Module, rounds: bool) -> Tensor:
        for quantizer in quantizers_of(model).values():
            quantizer.rounds = rounds and bool(quantizer.shape)
        with torch.no_grad():
            return model(x)

    exact = answers(small(name), False)
    nearest, learned = ((answers(calibrated(name, way), True) - exact).norm() for way in ("nearest", "gptq"))
    assert 0 < learned < 0.6 * nearest


def test_the_means_of_a_layer_s_outputs_are_float_s() -> None:
    model = small("efficientnet-quant-lite0")
    place_quantizers(model, "openvino", reduce_range=True)
    for name, quantizer in quantizers_of(model).items():  # the error of the weights alone
        quantizer.switch("weight" in name)
        quantizer.rounds = False
    layers = weighted_layers(model)
    for layer in layers.values():
        layer._weight_quantizer.follow(layer.weight)
    stem, exact, seen = model.stem, copy.deepcopy(model.stem), Normalise(PREPROCESSING)(images(8, seed=1))
    assert isinstance(stem, ConvBNAct)
    stem.act = exact.act = nn.Identity()
    with torch.no_grad():
        with counting(layers) as moments:
            model(seen)
        reconstruct(model, moments, Processes.alone(CPU))
        # At the positions that were counted, every fourth in both directions.
        difference = (stem(seen) - exact(seen))[:, :, 1::4, 1::4]
    assert difference.std() > 1e-3
    torch.testing.assert_close(
        difference.mean((0, 2, 3)), torch.zeros(difference.shape[1]), rtol=0, atol=1e-5
    )
