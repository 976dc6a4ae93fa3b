"""The kernels on a GPU: the truth, the same bits each time, under a compiler, and the choice by measurement."""

import copy
from pathlib import Path

import pytest
import torch

from effnet.kernels.available import has_triton
from effnet.kernels.block import KernelMBConv
from effnet.kernels.choose import Workload, choose_kernels
from effnet.kernels.tiles import TILES
from effnet.models.layers import MBConv
from tests.kernels.test_model import fused, small, stepped
from tests.kernels.truth import CASES, Case, check, inputs, operator, relative_error

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not (torch.cuda.is_available() and has_triton()), reason="needs a GPU and Triton"),
]

LARGE = [
    Case((8, channels, side, side), kernel, stride, top_left, "silu", tile)
    for channels, side, kernel, stride, top_left in (
        (96, 112, 3, 2, (1, 1)),
        (40, 57, 3, 1, (1, 1)),
        (144, 56, 5, 2, (1, 2)),
        (672, 14, 5, 1, (2, 2)),
        (1152, 7, 3, 1, (1, 1)),
    )
    for tile in range(len(TILES))
]


@pytest.mark.parametrize("case", [*CASES, *LARGE], ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 3e-3), (torch.bfloat16, 2e-2)]
)
def test_kernel_gives_the_truth(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    check(case, dtype, tolerance, "cuda")


def test_results_do_not_change_from_run_to_run() -> None:
    given = inputs(LARGE[0], torch.bfloat16, "cuda")
    runs = []
    for _ in range(3):
        found = operator(LARGE[0], given)
        gradients = torch.autograd.grad(found, given.given(), [torch.ones_like(output) for output in found])
        runs.append([*found, *gradients])
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_a_compiled_stage_trains_alike() -> None:
    torch.manual_seed(0)
    library = small("efficientnet-b0").layers[1].cuda().to(memory_format=torch.channels_last)
    kernels = fused(library)
    exact = copy.deepcopy(library).double()
    x = torch.randn(8, library.block0.expand.conv.in_channels, 57, 56, device="cuda")
    x = x.to(memory_format=torch.channels_last)
    found = stepped(kernels, x, torch.compile(kernels, fullgraph=True))
    assert relative_error(found, stepped(exact, x.double())) < 5e-3  # TF32 convolutions may be on
    for (name, a), b in zip(kernels.named_parameters(), exact.parameters(), strict=True):
        if "proj.bn.bias" not in name:  # a sum of what BatchNorm after it has made sum to zero
            assert relative_error(a.grad, b.grad) < 2e-2, name


def test_the_choice_is_measured_and_kept(tmp_path: Path) -> None:
    model = small("efficientnet-b0").cuda().to(memory_format=torch.channels_last)
    cache = tmp_path / "choices.json"
    workload = Workload(batch_size=32, image_size=64, dtype=torch.bfloat16, compiled=False)
    verdicts = choose_kernels(model, workload, "auto", cache)
    assert all(verdict.kernel is not None for verdict in verdicts.values()), verdicts
    assert choose_kernels(model, workload, "auto", cache) == verdicts
    choose_kernels(model, workload, "triton", cache)
    assert all(isinstance(block, KernelMBConv) for block in model.modules() if isinstance(block, MBConv))
