"""RMSprop in one pass: PyTorch's own, bit for bit, and the decision not to step."""

import copy
import logging

import pytest
import torch
from torch import Tensor

from effnet.kernels import cpu_rmsprop, rmsprop
from effnet.kernels.rmsprop import Rates, cpu_update, plain_update, update_for
from effnet.training.rmsprop import OnePassRMSprop

SETTINGS = {"lr": 0.05, "alpha": 0.9, "eps": 1e-3}
COUNT = 3000  # no multiple of a kernel's block


needs_compiler = pytest.mark.skipif(not cpu_rmsprop.is_available(), reason="needs a C++ compiler")


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_rmsprop, "takes", lambda parameter: False)


def optimizers(momentum: float, weight_decay: float) -> tuple[OnePassRMSprop, torch.optim.RMSprop]:
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(COUNT))
    options = {**SETTINGS, "momentum": momentum, "weight_decay": weight_decay}
    ours = OnePassRMSprop([{"params": [copy.deepcopy(parameter)]}], **options)
    state = {
        "square_avg": torch.zeros(COUNT),
        **({"momentum_buffer": torch.zeros(COUNT)} if momentum else {}),
    }
    ours.state[ours.param_groups[0]["params"][0]] = state
    ours.found_inf = torch.zeros(())
    return ours, torch.optim.RMSprop([parameter], foreach=False, **options)


def stepped(optimizer: torch.optim.Optimizer, gradient: Tensor) -> list[Tensor]:
    """Parameter and state after a step."""
    (parameter,) = optimizer.param_groups[0]["params"]
    parameter.grad = gradient.clone()
    optimizer.step()
    state = optimizer.state[parameter]
    return [
        parameter.detach(),
        *(state[name] for name in ("square_avg", "momentum_buffer") if state.get(name) is not None),
    ]


@pytest.mark.usefixtures("plainly")
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_plain_update_is_pytorch_s_to_the_bit(momentum: float, weight_decay: float) -> None:
    ours, theirs = optimizers(momentum, weight_decay)
    for _ in range(5):
        gradient = torch.randn(COUNT)
        for mine, other in zip(stepped(ours, gradient), stepped(theirs, gradient), strict=True):
            assert torch.equal(mine, other)


@needs_compiler
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("count", [1, 17, COUNT, 40_000])  # 40,000: several threads
def test_the_update_in_cpp_is_pytorch_s_in_double_precision(
    momentum: float, weight_decay: float, count: int
) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(count), torch.randn(3, count)
    exact = torch.nn.Parameter(start.double())
    options = {**SETTINGS, "momentum": momentum, "weight_decay": weight_decay}
    theirs = torch.optim.RMSprop([exact], foreach=False, **options)
    ours, square, moves = start.clone(), torch.zeros(count), torch.zeros(count)
    rates = Rates(lr=0.05, weight_decay=weight_decay, alpha=0.9, eps=1e-3, momentum=momentum)
    for gradient in gradients:
        exact.grad = gradient.double()
        theirs.step()
        cpu_update(ours, gradient, square, moves if momentum else None, torch.zeros(()), rates)
    torch.testing.assert_close(ours.double(), exact.detach(), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(square.double(), theirs.state[exact]["square_avg"], rtol=2e-6, atol=1e-7)


def test_double_precision_takes_pytorch_s_operators() -> None:
    given = torch.rand(4, 10, dtype=torch.float64)
    rates = Rates(lr=0.1, weight_decay=0.01, alpha=0.9, eps=0.01, momentum=0.9)
    ours, theirs = given.clone(), given.clone()
    for update, tensors in ((cpu_update, ours), (plain_update, theirs)):
        parameter, gradient, square, moves = tensors
        update(parameter, gradient, square, moves, torch.zeros(()), rates)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, given)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("takes", [pytest.param(True, marks=needs_compiler), False], ids=["cpp", "plain"])
def test_nothing_is_changed_by_a_step_that_is_left_out(
    momentum: float, takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_rmsprop, "takes", lambda parameter: takes)
    ours, _ = optimizers(momentum, 0.1)
    before = [tensor.clone() for tensor in stepped(ours, torch.randn(COUNT))]
    ours.found_inf = torch.ones(())
    for mine, kept in zip(stepped(ours, torch.full((COUNT,), torch.nan)), before, strict=True):
        assert torch.equal(mine, kept)


def test_a_kernel_that_does_not_agree_or_fails_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("triton")
    cpu = torch.device("cpu")
    assert update_for(cpu) is cpu_update  # without a GPU the kernel is not even tried
    monkeypatch.setattr(rmsprop, "INTERPRETING", True)

    def wrong(*arguments: object) -> None:
        plain_update(*arguments)  # type: ignore[arg-type]
        arguments[0].mul_(1.001)  # type: ignore[attr-defined]

    def failing(*arguments: object) -> None:
        raise RuntimeError("no such instruction\nand more")

    def careless(*arguments: object) -> None:
        plain_update(*arguments[:4], torch.zeros(()), *arguments[5:])  # type: ignore[arg-type, call-arg]

    for kernel, reason in ((wrong, "not close"), (failing, "no such instruction"), (careless, "not close")):
        rmsprop._agrees.cache_clear()
        caplog.clear()
        monkeypatch.setattr(rmsprop, "triton_update", kernel)
        with caplog.at_level(logging.WARNING):
            assert update_for(cpu) is plain_update
            assert update_for(cpu) is plain_update
        assert len(caplog.messages) == 1
        assert reason in caplog.text
    rmsprop._agrees.cache_clear()
    monkeypatch.setattr(rmsprop, "triton_update", agreeing := lambda *arguments: plain_update(*arguments))
    assert update_for(cpu) is agreeing
    rmsprop._agrees.cache_clear()


def test_the_numbers_of_a_group_are_used() -> None:
    parameter, gradient, square = torch.full((3,), 2.0), torch.ones(3), torch.zeros(3)
    rates = Rates(lr=0.5, weight_decay=1.0, alpha=0.75, eps=0.5, momentum=0.0)
    plain_update(parameter, gradient, square, None, torch.zeros(()), rates)
    # Slope 1 + 2 = 3; its square times 0.25 is 2.25, whose root and 0.5 are 2: 2 - 0.5 * 3 / 2.
    assert square.tolist() == [2.25] * 3
    assert parameter.tolist() == [1.25] * 3
