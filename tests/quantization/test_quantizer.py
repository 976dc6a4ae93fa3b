"""The quantizer against nvidia-modelopt's, which computes what NVIDIA's quantized models do."""

from typing import Any

import pytest
import torch
from torch import Tensor

from effnet.quantization.quantizer import Quantizer

config = pytest.importorskip("modelopt.torch.quantization.config")
modelopt = pytest.importorskip("modelopt.torch.quantization.nn")

SHAPES = [(), (6, 1, 1, 1)]


def theirs(amax: Tensor) -> Any:
    axis = 0 if amax.ndim else None
    quantizer = modelopt.TensorQuantizer(
        config.QuantizerAttributeConfig(
            num_bits=8, axis=axis, narrow_range=bool(amax.ndim), pass_through_bwd=False
        )
    )
    quantizer.amax = amax
    return quantizer.eval()


def ours(amax: Tensor) -> Quantizer:
    quantizer = Quantizer(tuple(amax.shape))
    quantizer.load_state_dict({"_amax": amax})
    return quantizer.eval()


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 8, 9, 9)
    amax = x.abs().amax((1, 2, 3), keepdim=True) if shape else torch.tensor(2.0)  # some values are clipped
    values, gradients = [], []
    for quantizer in (ours(amax), theirs(amax)):
        inputs = x.clone().requires_grad_()
        outputs = quantizer(inputs)
        (gradient,) = torch.autograd.grad(outputs.square().sum(), inputs)
        values.append(outputs.detach())
        gradients.append(gradient)
    torch.testing.assert_close(values[0], values[1], rtol=1e-6, atol=1e-7)
    # Ours passes the gradient up to half a step beyond the last level, -128 or 127; theirs is cut off at +-amax.
    step = amax / 127
    inside = (x.abs() < amax) | (x.abs() > amax + 1.5 * step)
    torch.testing.assert_close(gradients[0][inside], gradients[1][inside], rtol=1e-5, atol=1e-6)
    assert len(values[0].unique()) > 200


@pytest.mark.parametrize("shape", SHAPES)
def test_entries_are_exchanged_both_ways(shape: tuple[int, ...]) -> None:
    amax = torch.rand(shape) + 0.5
    from_theirs = Quantizer(shape, is_on=False)
    from_theirs.load_state_dict(theirs(amax).state_dict())
    assert from_theirs.is_on
    assert torch.equal(from_theirs._amax, amax)
    loaded = theirs(torch.ones_like(amax))
    loaded.load_state_dict(ours(amax).state_dict())
    x = torch.randn(6, 3, 5, 5)
    torch.testing.assert_close(loaded(x), ours(amax)(x), rtol=1e-6, atol=1e-7)
