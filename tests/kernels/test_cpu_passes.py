"""The CPU's passes against PyTorch in double precision."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet.kernels import cpu_passes
from effnet.kernels.cpu_passes import Incoming
from effnet.kernels.geometry import Geometry

pytestmark = pytest.mark.skipif(not cpu_passes.is_available(), reason="no C++ compiler")

ACTIVATIONS = (nn.Identity(), nn.SiLU(), nn.ReLU6(), nn.Hardswish())
# Rows and columns that are smaller than a kernel, odd, or wider than a vector.
SIZES = ((1, 1), (2, 2), (3, 5), (7, 12), (33, 18))


def images(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def number(activation: nn.Module) -> int:
    found = cpu_passes.activation_number(activation)
    assert found is not None
    return found


def assert_near(found: Tensor, exact: Tensor, tolerance: float = 3e-6) -> None:
    """Compare with the largest exact value, as sums of many terms of one size have errors of one size."""
    assert found.shape == exact.shape
    assert (found.double() - exact).abs().max() <= tolerance * exact.abs().max().clamp(min=1e-3)


def channelwise(vector: Tensor) -> Tensor:
    return vector.double()[..., None, None]


@pytest.mark.parametrize("channels", [8, 24, 320])
@pytest.mark.parametrize("size", SIZES)
def test_moments(channels: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = images(5, channels, *size) * 3 + 100  # where sums of squares would cancel
    mean, variance = cpu_passes.moments(x)
    exact_variance, exact_mean = torch.var_mean(x.double(), (0, 2, 3), correction=0)
    assert_near(mean, exact_mean, 1e-7)
    assert_near(variance, exact_variance)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("channels", [8, 40])
@pytest.mark.parametrize("size", SIZES)
def test_pixel_by_pixel(activation: nn.Module, channels: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x, grad = images(3, channels, *size) * 4, images(3, channels, *size)
    scale, shift, mean, constant, linear = torch.randn(5, channels)
    gate = torch.rand(3, channels)
    before = (x.double() * channelwise(scale) + channelwise(shift)).requires_grad_()
    active = activation(before)
    (slope,) = torch.autograd.grad(active.sum(), before)
    assert_near(cpu_passes.applied(x, scale, shift, gate, number(activation)), active * channelwise(gate))
    assert_near(cpu_passes.applied(x, scale, shift, None, number(activation)), active)
    assert_near(cpu_passes.pooled(x, scale, shift, number(activation)), active.mean((2, 3)))
    apart, arriving = x.double() - channelwise(mean), grad.double()
    terms = (arriving * active, arriving * slope, slope, arriving * slope * apart, slope * apart)
    found = cpu_passes.gradient_sums(grad, x, mean, scale, shift, number(activation))
    for sums, exact in zip(found, terms, strict=True):
        assert_near(sums, exact.sum((2, 3)), 1e-5)
    exact = channelwise(scale) * arriving * slope + channelwise(constant) + channelwise(linear) * x.double()
    vectors = (scale, shift, constant, linear, number(activation))
    assert_near(cpu_passes.applied_backward(grad, x, *vectors), exact)
    assert_near(cpu_passes.applied_backward(grad, x, *vectors, out=grad), exact)
    assert_near(grad, exact)


def paddings(kernel: int, stride: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Symmetric, and TensorFlow's, whose odd pixel comes after."""
    same = (max((-(-n // stride) - 1) * stride + kernel - n, 0) // 2 for n in size)
    return sorted({(kernel // 2, kernel // 2), tuple(same)})


CONVOLUTIONS = [
    Geometry(kernel, stride, *corner, *size)
    for kernel, stride, size in itertools.product((3, 5), (1, 2), SIZES)
    for corner in paddings(kernel, stride, size)
]


def convolved(x: Tensor, weight: Tensor, sizes: Geometry) -> Tensor:
    padded = F.pad(x, (sizes.left, sizes.right, sizes.top, sizes.bottom))
    return F.conv2d(padded, weight, stride=sizes.stride, groups=x.shape[1])


@pytest.mark.parametrize("sizes", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("channels", [8, 56])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS[1:3]], ids=lambda a: type(a).__name__)
def test_convolution(sizes: Geometry, channels: int, activation: nn.Module | None) -> None:
    torch.manual_seed(0)
    x, weight = images(11, channels, sizes.height, sizes.width), torch.randn(channels, 1, *[sizes.kernel] * 2)
    scale, shift = (None, None) if activation is None else torch.randn(2, channels).unbind()
    active = x.double().requires_grad_()
    if activation is not None and scale is not None and shift is not None:
        active = activation(active * channelwise(scale) + channelwise(shift))
    exact = convolved(active, weight.double(), sizes)
    y, mean, variance = cpu_passes.filtered(
        x, weight, scale, shift, sizes, number(activation or nn.Identity())
    )
    exact_variance, exact_mean = torch.var_mean(exact, (0, 2, 3), correction=0)
    assert_near(y, exact)
    assert (mean - exact_mean).abs().max() < 1e-6 * exact.abs().max()
    assert_near(variance, exact_variance, 1e-5)


@pytest.mark.parametrize("sizes", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("channels", [8, 56])
@pytest.mark.parametrize("normalises", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS[1:3], ids=lambda a: type(a).__name__)
def test_convolutions_gradients(
    sizes: Geometry, channels: int, normalises: bool, activation: nn.Module
) -> None:
    torch.manual_seed(0)
    x, weight = images(11, channels, sizes.height, sizes.width), torch.randn(channels, 1, *[sizes.kernel] * 2)
    scale, shift, mean, after, beyond, constant, linear = torch.randn(7, channels)
    gate, pooled = torch.rand(2, 11, channels)
    normal = x.double()
    if normalises:
        normal = normal * channelwise(scale) + channelwise(shift)
    exact_weight = weight.double().requires_grad_()
    normal.requires_grad_()
    exact_y = convolved(activation(normal) if normalises else normal, exact_weight, sizes)
    y, grad = exact_y.detach().float().contiguous(memory_format=torch.channels_last), images(*exact_y.shape)
    active = activation(exact_y * channelwise(after) + channelwise(beyond))
    (through,) = torch.autograd.grad(
        active, exact_y, grad.double() * channelwise(gate) + channelwise(pooled), retain_graph=True
    )
    whole = through + channelwise(constant) + channelwise(linear) * exact_y
    exact_grad, exact_grad_weight = torch.autograd.grad(exact_y, (normal, exact_weight), whole.detach())

    vectors: tuple[Any, Any, Any] = (scale, shift, mean) if normalises else (None, None, None)
    incoming = Incoming(y, grad, after, beyond, gate, pooled, constant, linear, number(activation))
    found, found_weight, sums = cpu_passes.filtered_backward(x, weight, *vectors, sizes, incoming)
    assert_near(found, exact_grad, 2e-5)
    assert_near(found_weight, exact_grad_weight, 2e-5)
    if normalises:
        apart = x.double() - channelwise(mean)
        assert_near(sums[0], exact_grad.sum((0, 2, 3)), 1e-4)
        assert_near(sums[1], (exact_grad * apart).sum((0, 2, 3)), 1e-4)


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    sizes = Geometry(5, 1, 2, 2, 9, 9)
    x, grad, weight = images(9, 72, 9, 9), images(9, 72, 9, 9), torch.randn(72, 1, 5, 5)
    scale, shift, mean, constant, linear = torch.randn(5, 72)
    silu, threads = number(nn.SiLU()), torch.get_num_threads()
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        y, *moments = cpu_passes.filtered(x, weight, scale, shift, sizes, silu)
        incoming = Incoming(y, grad, scale, shift, None, None, constant, linear, silu)
        backward = cpu_passes.filtered_backward(x, weight, scale, shift, mean, sizes, incoming)
        sums = cpu_passes.gradient_sums(grad, x, mean, scale, shift, silu)
        results.append([y, *moments, *backward, sums, *cpu_passes.moments(x)])
    torch.set_num_threads(threads)
    for found in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, results[0], strict=True))


def test_values_that_are_not_finite_stay_so() -> None:
    x = images(1, 8, 2, 2)
    x[0, 0, 0, 0], x[0, 1, 1, 1], x[0, 2, 0, 1] = float("nan"), float("inf"), -float("inf")
    ones, silu = torch.ones(8), number(nn.SiLU())
    found = cpu_passes.applied(x, ones, ones * 0, None, silu)
    assert torch.equal(found.isfinite(), F.silu(x).isfinite())
    mean, variance = cpu_passes.moments(x)
    assert mean.isfinite().tolist() == variance.isfinite().tolist() == [False] * 3 + [True] * 5


@pytest.mark.parametrize("value", [-1e30, -200.0, -88.0, -30.0, 30.0, 88.0, 200.0, 1e30])
def test_silu_far_from_zero(value: float) -> None:
    x = torch.full((1, 8, 1, 1), value)
    found = cpu_passes.applied(x, torch.ones(8), torch.zeros(8), None, number(nn.SiLU()))
    torch.testing.assert_close(found, F.silu(x), rtol=1e-6, atol=1e-7)
