"""Pointwise convolutions as matrix products, by either library, against float64."""

import pytest
import torch
from torch import Tensor

from effnet.kernels import cpu_convolution, cpu_product
from effnet.kernels.cpu_convolution import DenseConv2d

# images, in, out, pixels of a side
SHAPES = [
    (2, 24, 144, 16),
    (2, 144, 24, 16),
    (3, 40, 240, 8),
    (3, 240, 40, 8),
    (4, 64, 8, 1),
    (4, 8, 64, 1),
    (1, 8, 8, 1),
]


@pytest.fixture(params=[True, False], ids=["onednn", "mkl"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch is built without oneDNN")
    for module in (cpu_product, cpu_convolution):
        monkeypatch.setattr(module, "by_onednn", lambda: request.param)
    return bool(request.param)


def gradients(conv: torch.nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = x.detach().requires_grad_()
    out = conv(x)
    weight: Tensor = conv.weight  # type: ignore[assignment]
    return (out.detach(), *torch.autograd.grad(out, [x, weight], grad))


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(("images", "inputs", "outputs", "side"), SHAPES)
@pytest.mark.parametrize("given", [torch.channels_last, torch.contiguous_format], ids=["last", "first"])
def test_gradients(images: int, inputs: int, outputs: int, side: int, given: torch.memory_format) -> None:
    torch.manual_seed(0)
    conv = DenseConv2d(inputs, outputs, 1, 1, 1, "symmetric").train()
    x = torch.randn(images, inputs, side, side).to(memory_format=given)
    grad = torch.randn(images, outputs, side, side).to(memory_format=given)
    found = gradients(conv, x, grad)
    exact = torch.nn.Conv2d(inputs, outputs, 1, bias=False).double()
    exact.weight.data.copy_(conv.weight)
    for name, a, b in zip(
        ("output", "x", "weight"), found, gradients(exact, x.double(), grad.double()), strict=True
    ):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=2e-6 * float(b.abs().max()) + 1e-7, msg=name)
    assert found[2].stride() == conv.weight.stride()


def test_double_precision_takes_pytorch(library: bool) -> None:
    a, b = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    torch.testing.assert_close(
        cpu_product.product(a, b), torch.einsum("mk,nk->mn", a, b), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize(
    ("vendor", "machine", "expected"),
    [("AuthenticAMD", "x86_64", True), ("GenuineIntel", "x86_64", False), ("", "aarch64", False)],
)
def test_which_library(monkeypatch: pytest.MonkeyPatch, vendor: str, machine: str, expected: bool) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(cpu_product, "is_intel", lambda: vendor == "GenuineIntel")
    cpu_product.by_onednn.cache_clear()
    try:
        assert cpu_product.by_onednn() is (expected and torch.backends.mkldnn.is_available())
    finally:
        cpu_product.by_onednn.cache_clear()
