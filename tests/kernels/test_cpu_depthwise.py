"""The CPU kernel against PyTorch in double precision."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from effnet.kernels import cpu_depthwise
from effnet.kernels.cpu_convolution import DepthwiseConv2d, on_cpu
from effnet.models.layers import Conv2d
from effnet.models.replace import replace_modules
from effnet.weights import create_model

pytestmark = pytest.mark.skipif(not cpu_depthwise.is_available(), reason="no C++ compiler")


@pytest.mark.parametrize("channels", [8, 16, 24, 40])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 0), (5, 1, 2), (5, 2, 2), (5, 2, 0)]
)
@pytest.mark.parametrize(("images", "height", "width"), [(1, 7, 7), (3, 5, 12), (11, 6, 6), (2, 33, 17)])
def test_gradients(
    channels: int, kernel: int, stride: int, padding: int, images: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(images, channels, height, width).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, kernel, kernel)
    exact = [tensor.double().requires_grad_() for tensor in (x, weight)]
    ours = [tensor.requires_grad_() for tensor in (x, weight)]
    expected = F.conv2d(*exact, None, stride, padding, groups=channels)
    out = cpu_depthwise.depthwise(ours[0], ours[1], stride, padding)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(out)
    out.backward(grad)
    expected.backward(grad.double())
    for tensor, reference in zip(ours, exact, strict=True):
        largest = reference.grad.abs().max()
        assert (tensor.grad.double() - reference.grad).abs().max() < 2e-6 * largest


@pytest.mark.parametrize("size", [1, 2, 3])
def test_maps_smaller_than_the_kernel(size: int) -> None:
    test_gradients(16, 5, 1, 2, 4, size, size)
    test_gradients(16, 3, 1, 1, 4, size, size)


def test_memory_in_another_order() -> None:
    x, grad = torch.randn(2, 16, 9, 9), torch.randn(2, 9, 9, 16).permute(0, 3, 1, 2)
    given = torch.ops.effnet.depthwise_weight_gradient(x, grad, 5, 1, 2)
    ordered = torch.ops.effnet.depthwise_weight_gradient(
        x.contiguous(memory_format=torch.channels_last), grad, 5, 1, 2
    )
    assert torch.equal(given, ordered)


def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    x, grad = (torch.randn(9, 32, 14, 14).contiguous(memory_format=torch.channels_last) for _ in range(2))
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(torch.ops.effnet.depthwise_weight_gradient(x, grad, 5, 1, 2))
    torch.set_num_threads(before)
    assert all(torch.equal(results[0], result) for result in results)


def with_kernel(name: str, use: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    model = create_model(name, num_classes=4, survival_prob=1.0, dropout=0.0)
    if use:
        replace_modules(model, on_cpu)
        assert any(isinstance(module, DepthwiseConv2d) for module in model.modules())
    return model.to(memory_format=torch.channels_last).train()


def gradients(model: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    F.cross_entropy(model(x), torch.arange(8) % 4).backward()
    return {key: parameter.grad.double() for key, parameter in model.named_parameters()}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnet-lite0"])
def test_a_models_gradients_are_the_librarys(name: str) -> None:
    x = torch.randn(8, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    exact, theirs, ours = (
        gradients(with_kernel(name, use).to(dtype), x.to(dtype))
        for use, dtype in ((False, torch.float64), (False, torch.float32), (True, torch.float32))
    )
    for key, reference in exact.items():
        # The gradients of biases before another BatchNorm are zero, and what is left of them is rounding.
        apart, rounding = ((of[key] - reference).abs().max() for of in (ours, theirs))
        assert apart <= 1e-4 * reference.abs().max() + 5 * rounding, key


def test_the_operator_is_a_whole_citizen() -> None:
    x, grad = torch.randn(2, 16, 6, 6), torch.randn(2, 16, 6, 6)
    torch.library.opcheck(torch.ops.effnet.depthwise_weight_gradient, (x, grad, 5, 1, 2))


@pytest.mark.slow
def test_compiled_in_one_graph() -> None:
    torch.manual_seed(0)
    conv = on_cpu(Conv2d(16, 16, 5, 1, groups=16, padding="symmetric").train())
    assert isinstance(conv, DepthwiseConv2d)
    x = torch.randn(2, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    conv(x).square().sum().backward()
    expected, conv.weight.grad = conv.weight.grad, None
    torch.compile(conv, fullgraph=True)(x).square().sum().backward()
    torch.testing.assert_close(conv.weight.grad, expected)


def test_without_a_compiler_training_goes_on(tmp_path: Path) -> None:
    script = "from effnet.kernels import cpu_depthwise; print(cpu_depthwise.is_available())"
    environment = {"PATH": "", "CXX": "/no/such/compiler", "EFFNET_HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert ended.stdout == "False\n"
