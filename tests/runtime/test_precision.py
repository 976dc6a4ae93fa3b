"""Arithmetic by device, and loss scaling."""

from collections.abc import Iterator

import pytest
import torch

from effnet.runtime.errors import UserError
from effnet.runtime.precision import Precision, resolve_precision, tune_convolutions

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def capability(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Features of the GPU: the last entry."""
    known = [(8, 0)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: known[-1])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    return known


@pytest.fixture
def flags() -> Iterator[None]:
    """PyTorch's switches, put back after the test."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("found", "expected"), [((7, 0), "fp32"), ((8, 0), "tf32"), ((9, 0), "tf32")])
def test_an_open_precision_is_tf32_where_there_is_tf32(
    capability: list[tuple[int, int]], found: tuple[int, int], expected: str
) -> None:
    capability.append(found)
    assert resolve_precision(None, CUDA) == expected
    assert resolve_precision("fp32", CUDA) == "fp32"
    assert resolve_precision(None, CPU) == "fp32"


def test_tf32_asked_for_is_refused_where_there_is_none(capability: list[tuple[int, int]]) -> None:
    capability.append((7, 0))
    with pytest.raises(UserError, match="not Tesla V100; use fp32 or fp16"):
        resolve_precision("tf32", CUDA)
    with pytest.raises(UserError, match="not a CPU"):
        resolve_precision("tf32", CPU)


@pytest.mark.usefixtures("capability", "flags")
@pytest.mark.parametrize(
    ("name", "allowed"), [(None, True), ("tf32", True), ("fp32", False), ("fp16", False)]
)
@pytest.mark.filterwarnings("ignore:.*GradScaler is enabled, but CUDA is not available")
def test_tf32_is_switched_for_products_and_convolutions(name: str | None, allowed: bool) -> None:
    with torch.backends.cudnn.flags(allow_tf32=not allowed):
        Precision(name, CUDA)
        assert torch.backends.cudnn.allow_tf32 is allowed
        assert torch.backends.cuda.matmul.allow_tf32 is allowed
        # The newer names of the same switches, which PyTorch's compiler reads too.
        assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is allowed
        assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is allowed


@pytest.mark.usefixtures("flags")
def test_a_cpu_leaves_the_switches_alone() -> None:
    torch.set_float32_matmul_precision("high")
    Precision("fp32", CPU)
    assert torch.get_float32_matmul_precision() == "high"


def test_convolutions_are_tuned_unless_results_are_to_be_repeated() -> None:
    for deterministic, device, tuned in ((False, CUDA, True), (True, CUDA, False), (False, CPU, False)):
        with torch.backends.cudnn.flags(benchmark=False, deterministic=deterministic, allow_tf32=True):
            tune_convolutions(device)
            assert torch.backends.cudnn.benchmark is tuned


def run_step(precision: Precision, *, overflow: bool) -> None:
    parameter = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    precision.scale(parameter * (float("inf") if overflow else 1.0)).backward()
    precision.scaler.unscale_(optimizer)
    precision.update_scale()


def test_a_dynamic_scale_doubles_after_100_good_steps_and_halves_on_overflow() -> None:
    precision = Precision("fp16", CPU)
    scales = []
    for step in range(302):
        run_step(precision, overflow=step == 150)
        scales.append(precision.loss_scale())
    # Step 99 is the 100th; the overflow starts the count again.
    assert [scales[step] for step in (0, 98, 99, 149, 150, 249, 250, 301)] == [
        *(128.0, 128.0, 256.0, 256.0, 128.0, 128.0, 256.0, 256.0)
    ]


def test_a_static_scale_stays() -> None:
    precision = Precision("fp16", CPU, static_loss_scale=64.0)
    for step in range(210):
        run_step(precision, overflow=step == 5)
        assert precision.loss_scale() == 64.0


def test_only_fp16_scales() -> None:
    assert Precision("bf16", CPU).loss_scale() is None


def test_a_resumed_run_takes_over_the_scale_and_not_how_it_adapts() -> None:
    # What an earlier version wrote: it doubled after 2000 steps.
    written = torch.amp.GradScaler("cpu", init_scale=512.0, growth_interval=2000).state_dict()
    resumed = Precision("fp16", CPU)
    resumed.load_state_dict(written)
    assert resumed.loss_scale() == 512.0
    for _ in range(100):
        run_step(resumed, overflow=False)
    assert resumed.loss_scale() == 1024.0
    fixed = Precision("fp16", CPU, static_loss_scale=64.0)
    fixed.load_state_dict(written)
    assert fixed.loss_scale() == 64.0
    # A run without scaling has written nothing.
    resumed.load_state_dict(torch.amp.GradScaler("cpu", enabled=False).state_dict())
    assert resumed.loss_scale() == 1024.0
