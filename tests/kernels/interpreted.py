"""The Triton kernels themselves, on a CPU in Triton's interpreter; `test_interpreter.py` runs this file.

The interpreter has to be asked for before Triton is imported, so these tests need a process of their own.
"""

import copy
from dataclasses import asdict, replace

import pytest
import torch

from effnet.kernels.available import INTERPRETING
from effnet.kernels.choose import with_tile
from effnet.kernels.operators import depthwise, runs_kernels
from effnet.kernels.rmsprop import Rates, triton_update, update_for
from effnet.kernels.workload import Workload
from effnet.models.config import MODEL_CONFIGS
from effnet.models.layers import MBConv
from tests.kernels.truth import CASES, Case, check


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    assert INTERPRETING
    assert runs_kernels(torch.zeros(1))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernel_gives_the_truth(case: Case) -> None:
    check(case, torch.float64, 1e-13)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)]
)
def test_narrow_types_are_summed_in_float32(dtype: torch.dtype, tolerance: float) -> None:
    check(Case((2, 8, 9, 8), 5, 2, (1, 2), "silu", 1), dtype, tolerance)


def test_gradients_by_finite_differences() -> None:
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    scale, shift = torch.randn(2, 2, dtype=torch.float64).unbind()
    leaves = (x, weight, scale.requires_grad_(), shift.requires_grad_())
    assert torch.autograd.gradcheck(lambda *a: depthwise(*a, 3, 1, 1, 1, "silu", 2), leaves, fast_mode=True)


def test_variance_beside_a_large_mean() -> None:
    # In float32, 1000^2 + 1 has no digits left for a variance of 1 to be accurate: not from sums of squares.
    x = (1000 + torch.randn(2, 4, 20, 9)).to(memory_format=torch.channels_last)
    centre = torch.zeros(4, 1, 3, 3)
    centre[:, :, 1, 1] = 1
    y, mean, variance = depthwise(x, centre, None, None, 3, 1, 1, 1, "none", 0)
    assert torch.equal(y, x)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance.double(), x.double().var((0, 2, 3), correction=0), rtol=1e-4, atol=0)


def test_a_block_of_the_model() -> None:
    config = replace(MODEL_CONFIGS["efficientnet-b0"], width=0.25, survival_prob=1.0)
    library = MBConv(config, config.stages()[2], True, 1.0).double()
    workload = Workload(batch_size=2, image_size=11, dtype=None, compiled=False)
    kernels = with_tile(copy.deepcopy(library), 0, workload)
    x = torch.randn(2, library.expand.conv.in_channels, 11, 10, dtype=torch.float64)
    outputs = [block(x) for block in (library, kernels)]
    arriving = torch.randn_like(outputs[0])
    expected, found = (
        torch.autograd.grad(output, list(block.parameters()), arriving)
        for output, block in zip(outputs, (library, kernels), strict=True)
    )
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(kernels.state_dict(), library.state_dict())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop_is_pytorch_s(momentum: float) -> None:
    count = 2500  # no multiple of a block
    assert update_for(torch.device("cpu")) is triton_update
    parameter = torch.nn.Parameter(torch.randn(count))
    square, buffer = torch.zeros(count), torch.zeros(count) if momentum else None
    found = parameter.detach().clone()
    rates = Rates(lr=0.05, weight_decay=0.1, alpha=0.9, eps=1e-3, momentum=momentum)
    theirs = torch.optim.RMSprop([parameter], **asdict(rates))
    for left_out in (False, True, False):
        gradient = torch.randn(count)
        if left_out:
            gradient[7] = torch.nan
        else:
            parameter.grad = gradient.clone()
            theirs.step()
        triton_update(found, gradient, square, buffer, torch.tensor(float(left_out)), rates)
        torch.testing.assert_close(found, parameter.detach(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(square, theirs.state[parameter]["square_avg"], rtol=1e-6, atol=1e-7)
