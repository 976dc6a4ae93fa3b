"""Fake quantization in one pass, on a CPU, against PyTorch's operators."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from effnet.kernels import cpu_rounding
from effnet.quantization import rounding
from effnet.quantization.rounding import Grid, round_to_grid, rounded_silu

pytestmark = pytest.mark.skipif(not cpu_rounding.takes(torch.zeros(1)), reason="no C++ compiler")

GRIDS = [Grid(0.0123, -105), Grid(0.04, 0), Grid(0.5, -128), Grid(2.0**-40, 3)]
GATES = Grid(1 / 255, -128)


def outcome(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    grad: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    one_pass: bool,
) -> tuple[Tensor, Tensor]:
    """Values and gradient of a function, with the kernel or with PyTorch's operators."""
    with monkeypatch.context() as patch:
        if not one_pass:
            patch.setattr(rounding, "_in_one_pass", lambda x: False)
        x = x.detach().requires_grad_()
        y = function(x)
        y.backward(grad)
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shape", [(7,), (3, 40), (2, 24, 9, 11), (4, 64, 33, 33)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_values_and_gradients_are_those_of_pytorchs_operators(
    grid: Grid, shape: tuple[int, ...], channels_last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape) * grid.high * 0.7 + grid.low * 0.2
    x.view(-1)[:3] = torch.tensor([grid.high * 1e6, grid.low * 1e6 - 1, 0.0])
    if channels_last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    grad = torch.randn(shape)  # in another order of memory
    functions = [lambda x: round_to_grid(x, grid), lambda x: rounded_silu(x, grid, GATES)]
    for function in functions:
        value, gradient = outcome(function, x, grad, monkeypatch, one_pass=True)
        expected, expected_gradient = outcome(function, x, grad, monkeypatch, one_pass=False)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-6)
        assert value.stride() == x.stride()


def test_all_levels_are_reached_and_halves_go_to_the_even_one() -> None:
    grid = Grid(0.25, 10)
    low, high = grid.levels
    x = torch.arange(2 * low - 1, 2 * high + 2, dtype=torch.float32) * (grid.scale / 2)
    expected = torch.fake_quantize_per_tensor_affine(x, grid.scale, grid.zero_point, -128, 127)
    y = round_to_grid(x, grid)
    assert torch.equal(y, expected)
    assert len(y.unique()) == 256


def test_what_is_not_a_number_stays_so_and_the_infinite_is_clipped() -> None:
    grid = Grid(0.1, -20)
    x = torch.tensor([math.nan, math.inf, -math.inf, 1.0], requires_grad=True)
    for y in (round_to_grid(x, grid), rounded_silu(x, grid, GATES)):
        assert y.isnan().tolist() == [True, False, False, False]
        (gradient,) = torch.autograd.grad(y[1:].sum(), x)
        assert gradient[1:3].tolist() == [0, 0]
        assert gradient[3] != 0
    assert round_to_grid(x, grid)[1:3].tolist() == pytest.approx([grid.high, grid.low])


def test_where_no_gradient_is_wanted() -> None:
    grid = Grid(0.011, 100)  # not seen before: its table is made here
    x = torch.randn(3, 8, 5, 5)
    with torch.inference_mode():
        y = rounded_silu(x, grid, GATES)
    assert torch.equal(y, rounded_silu(x.requires_grad_(), grid, GATES).detach())


def test_only_dense_float32_is_taken() -> None:
    x = torch.randn(4, 8, 6, 6)
    assert cpu_rounding.takes(x.contiguous(memory_format=torch.channels_last))
    for other in (x.double(), x.bfloat16(), x[:, ::2], x.permute(0, 2, 1, 3), x.to("meta")):
        assert not cpu_rounding.takes(other)
        assert rounded_silu(other, GRIDS[0], GATES).shape == other.shape


def test_the_operators_are_whole_citizens() -> None:
    x, table = (
        torch.randn(2, 16, 6, 6),
        cpu_rounding.table_of(torch.randn(256), outside=0.0, not_a_number=1.0),
    )
    torch.library.opcheck(torch.ops.effnet.round, (x, 0.1, -128, 127))
    torch.library.opcheck(torch.ops.effnet.round_table, (x, 0.1, -128, 127, table))
    torch.library.opcheck(torch.ops.effnet.round_table_backward, (x, x, 0.1, -128, 127, table))
