"""The operators on a CPU, where their plain PyTorch version runs: meaning, gradients, what compilers see."""

from pathlib import Path

import pytest
import torch
from torch._functorch.aot_autograd import aot_export_joint_simple
from torch._subclasses.fake_tensor import FakeTensorMode

from effnet.kernels.operators import depthwise, depthwise_backward, moments, runs_kernels
from effnet.kernels.tiles import TILES
from tests.kernels.truth import CASES, Case, Inputs, check, inputs, operator


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_plain_pytorch_is_right(case: Case) -> None:
    assert not runs_kernels(torch.zeros(1))
    check(case, torch.float64, 1e-13)


@pytest.mark.parametrize("case", CASES[:4], ids=str)
def test_gradients_by_finite_differences(case: Case) -> None:
    small = case._replace(shape=(1, 2, *case.shape[2:]))
    given = inputs(small, torch.float64)
    assert torch.autograd.gradcheck(lambda *a: operator(small, Inputs(*a)), tuple(given), fast_mode=True)


@pytest.mark.parametrize("case", [CASES[1], CASES[6]], ids=str)
def test_operators_obey_pytorchs_rules(case: Case) -> None:
    # schema, fake tensors (shapes, strides, types), autograd, and the graph that AOTAutograd makes
    given = inputs(case, torch.float32)
    torch.library.opcheck(
        depthwise, (*given, case.kernel, case.stride, *case.top_left, case.activation, case.tile)
    )
    torch.library.opcheck(moments, (given.x,))


def test_moments_keep_their_digits_in_bf16() -> None:
    x = (5 + torch.randn(4, 3, 9, 7)).bfloat16().requires_grad_()
    mean, variance = moments(x)
    exact = x.detach().double().requires_grad_()
    variance_exact, mean_exact = torch.var_mean(exact, (0, 2, 3), correction=0)
    torch.testing.assert_close(mean.double(), mean_exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(variance.double(), variance_exact, rtol=1e-5, atol=0)
    weights = torch.randn(2, 3)
    (mean * weights[0] + variance * weights[1]).sum().backward()
    (mean_exact * weights[0] + variance_exact * weights[1]).sum().backward()
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-2, atol=1e-6)


class _Hopper:
    """Stands for the driver of a GPU that is not there: enough to compile for it."""

    def get_current_target(self) -> object:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0


def test_a_compiler_sees_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(triton.runtime.driver, "_active", _Hopper())

    def both(
        x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
    ) -> tuple[object, ...]:
        how = (3, 1, 1, 1, "silu", 0)
        y, mean, variance = depthwise(x, weight, scale, shift, *how)
        return y, *depthwise_backward(x, weight, scale, shift, y, y, mean, variance, *how)

    with FakeTensorMode():
        x = torch.empty(2, 32, 14, 14, device="cuda:0", dtype=torch.bfloat16)
        weight = torch.empty(32, 1, 3, 3, device="cuda:0", dtype=torch.bfloat16)
        scale, shift = torch.empty(2, 32, device="cuda:0").unbind()
        graph = aot_export_joint_simple(both, (x, weight, scale, shift), trace_joint=False).graph
    kernels = [node for node in graph.nodes if "triton_kernel_wrapper" in str(node.target)]
    # Reading what a kernel writes off its code spares copies of all that it reads.
    assert [node.kwargs["tensors_to_clone"] for node in kernels] == [
        ["y", "partials"],
        ["grad_x", "partials"],
    ]
    assert not any("effnet" in str(node.target) for node in graph.nodes)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "tile"), [(3, 1), (5, 0), (5, 2)])
def test_kernels_compile_for_hopper(
    kernel: int, tile: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To machine code, with a GPU or without: the interpreter takes more than the compiler does."""
    triton = pytest.importorskip("triton")
    from triton.compiler import ASTSource

    from effnet.kernels import triton_depthwise as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = {
        "C": 144,
        "H": 56,
        "W": 56,
        "OUT_H": 28,
        "OUT_W": 28,
        "K": kernel,
        "STRIDE": 2,
        "TOP": 1,
        "LEFT": 1,
    }
    how = TILES[tile]
    constants = {
        **sizes,
        "NORMALISED": True,
        "ACTIVATION": "silu",
        "STRIPS": how.strips,
        "COLUMNS": how.columns,
        "CHANNELS": how.channels,
        "ROWS": 28,
    }
    wide = {"scale", "shift", "constants", "slopes", "partials"}
    for function in (kernels.forward_kernel, kernels.backward_kernel):
        pointers = {name: "*fp32" if name in wide else "*bf16" for name in function.arg_names}
        source = ASTSource(
            fn=function,
            signature={name: "constexpr" if name in constants else kind for name, kind in pointers.items()},
            constexprs=constants,
        )
        compiled = triton.compile(
            source, target=_Hopper().get_current_target(), options={"num_warps": how.warps}
        )
        assert "fma.rn.f32" in compiled.asm["ptx"]
        assert len(compiled.asm["cubin"]) > 1000
