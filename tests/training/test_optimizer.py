"""The flat optimizer does what PyTorch's does, and leaves out steps that are not finite."""

from copy import deepcopy
from typing import Any

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from effnet.kernels import cpu_rmsprop
from effnet.recipe import ResolvedOptimizer
from effnet.runtime.errors import UserError
from effnet.training.freezing import parts_of
from effnet.training.optimizer import FlatOptimizer
from effnet.training.optimizers import OPTIMIZERS, optimizer_kind
from effnet.weights import create_model

NO_SCALING = torch.amp.GradScaler("cpu", enabled=False)
LR = 0.05
DECAY = 0.1
EPS = 1e-3
BETAS = (0.8, 0.95)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 4, 1))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def settings(**changes: object) -> ResolvedOptimizer:
    values = {
        "lr": LR,
        "base_lr": LR,
        "batch_size": 64,
        "optimizer_batch_size": 64,
        "weight_decay": DECAY,
        "rmsprop_eps": EPS,
        "adamw_betas": BETAS,
        "adamw_eps": EPS,
        **changes,
    }
    return ResolvedOptimizer(**values)  # type: ignore[arg-type]


def backward(model: nn.Module, step: int) -> None:
    torch.manual_seed(step)
    model(torch.randn(4, 3, 8, 8)).square().mean().backward()


def torch_optimizer(
    model: nn.Module, kind: str, bn_weight_decay: bool, nesterov: bool
) -> torch.optim.Optimizer:
    norm = [p for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    rest = [p for p in model.parameters() if all(p is not n for n in norm)]
    groups = [
        {"params": rest, "weight_decay": DECAY},
        {"params": norm, "weight_decay": DECAY if bn_weight_decay else 0},
    ]
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=LR, momentum=0.9, nesterov=nesterov)
    return torch.optim.RMSprop(groups, lr=LR, alpha=0.9, eps=EPS, momentum=0.9)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("kind", "nesterov", "bn_weight_decay"),
    [
        ("rmsprop", False, False),
        ("rmsprop", False, True),
        ("sgd", False, False),
        ("sgd", True, False),
        ("adamw", False, False),
        ("adamw", False, True),
    ],
)
def test_equals_pytorch(kind: str, nesterov: bool, bn_weight_decay: bool, fused: bool) -> None:
    ours, theirs = network(), network()
    chosen = settings(optimizer=kind, nesterov=nesterov, bn_weight_decay=bn_weight_decay)
    flat = FlatOptimizer(ours, chosen, fused=fused)
    optimizer = torch_optimizer(theirs, kind, bn_weight_decay, nesterov)
    for step in range(5):
        backward(ours, step)
        flat.step(NO_SCALING)
        optimizer.zero_grad()
        backward(theirs, step)
        optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    assert ours[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_equals_itself_over_separate_parameters(
    name: str, momentum: float, fused: bool
) -> None:
    ours, theirs = network(), network()
    chosen = settings(optimizer=name, momentum=momentum, bn_weight_decay=True)
    flat = FlatOptimizer(ours, chosen, fused=fused)
    group = {"params": list(theirs.parameters()), "lr": LR, "weight_decay": DECAY}
    optimizer = OPTIMIZERS[name].build([group], chosen, fused=False)
    for step in range(4):
        backward(ours, step)
        flat.step(NO_SCALING)
        optimizer.zero_grad()
        backward(theirs, step)
        optimizer.step()
    for (parameter, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
        state = flat.state_dict().get(parameter, {})
        kept = {key for key, value in optimizer.state[other].items() if value is not None}
        assert state.keys() == kept - (set() if OPTIMIZERS[name].depends_on_steps else {"step"})
        for key, value in state.items():
            torch.testing.assert_close(value, optimizer.state[other][key], rtol=1e-5, atol=1e-6)


def test_a_switch_of_another_optimizer_is_refused() -> None:
    with pytest.raises(UserError, match="--nesterov goes with --optimizer sgd"):
        optimizer_kind(settings(optimizer="rmsprop", nesterov=True))
    assert optimizer_kind(settings(optimizer="sgd", nesterov=True)).name == "sgd"


def test_learning_rate_and_backbone_factor() -> None:
    model = nn.Sequential()
    model.add_module("body", nn.Linear(2, 2))
    model.add_module("classifier", nn.Linear(2, 2))
    plain_sgd = settings(optimizer="sgd", momentum=0.0, weight_decay=0.0, backbone_lr_factor=0.1)
    flat = FlatOptimizer(model, plain_sgd, [model.get_submodule("classifier")])
    before = deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    flat.set_lr(1.0)
    flat.step(NO_SCALING)
    torch.testing.assert_close(model.body.weight, before.body.weight - 0.1)
    torch.testing.assert_close(model.classifier.weight, before.classifier.weight - 1.0)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float, kind: str, fused: bool) -> None:
    model = network()
    flat = FlatOptimizer(model, settings(optimizer=kind), fused=fused)
    backward(model, 0)
    assert flat.step(NO_SCALING)
    weights = deepcopy(model.state_dict())
    state = deepcopy(flat.state_dict())
    backward(model, 1)
    assert model[0].weight.grad is not None
    model[0].weight.grad[0, 0, 0, 0] = bad
    norm = {k: v.clone() for k, v in model.state_dict().items() if "running" in k or "tracked" in k}
    assert not flat.step(NO_SCALING)
    for key, value in model.state_dict().items():
        assert torch.equal(value, norm.get(key, weights[key])), key
    for name, kinds in flat.state_dict().items():
        for key, value in kinds.items():
            assert torch.equal(value, state[name][key])


@pytest.mark.parametrize("fused", [False, True])
def test_loss_scaling_is_undone_and_overflow_lowers_the_scale(fused: bool) -> None:
    plain, scaled = network(), network()
    one, other = (FlatOptimizer(model, settings(), fused=fused) for model in (plain, scaled))
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8)
    plain(x).square().mean().backward()
    one.step(NO_SCALING)
    scaler.scale(scaled(x).square().mean()).backward()
    other.step(scaler)
    scaler.update()
    torch.testing.assert_close(scaled[0].weight, plain[0].weight)
    (scaler.scale(scaled(x).square().mean()) * float("inf")).backward()
    before = scaled[0].weight.clone()
    other.step(scaler)
    scaler.update()
    assert torch.equal(scaled[0].weight, before)
    assert scaler.get_scale() == 128.0


class Transfers(TorchDispatchMode):
    """Counts the operations that read a tensor's value on the host, for which a GPU would have to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_fused_step_reads_nothing_on_the_host(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_rmsprop, "takes", lambda parameter: False)  # as on a GPU
    reads = {}
    for fused in (False, True):
        model = network()
        flat = FlatOptimizer(model, settings(optimizer=kind, clip_grad=1.0), fused=fused)
        backward(model, 0)
        with Transfers() as transfers:
            flat.step(NO_SCALING)
        reads[fused] = transfers.reads
    assert reads[False] > 0  # the decision on a CPU, which the counter sees
    assert reads[True] == 0


def test_state_survives_another_memory_format() -> None:
    model, other = network(), network().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    flat = FlatOptimizer(model, settings())
    backward(model, 0)
    flat.step(NO_SCALING)
    restored = FlatOptimizer(other, settings())
    restored.load_state_dict(flat.state_dict())
    for name, kinds in restored.state_dict().items():
        for kind, value in kinds.items():
            assert torch.equal(value, flat.state_dict()[name][kind])


def test_state_of_another_optimizer_is_refused() -> None:
    state = FlatOptimizer(network(), settings(optimizer="sgd")).state_dict()
    with pytest.raises(UserError, match="another model or optimizer"):
        FlatOptimizer(network(), settings(optimizer="rmsprop")).load_state_dict(state)


@pytest.mark.parametrize("fused", [False, True])
def test_frozen_parameters_are_left_alone(fused: bool) -> None:
    model = network()
    model[0].requires_grad_(False)
    flat = FlatOptimizer(model, settings(), fused=fused)
    before = model[0].weight.clone()
    backward(model, 0)
    flat.step(NO_SCALING)
    assert torch.equal(model[0].weight, before)
    assert "0.weight" not in flat.state_dict()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("max_norm", [0.05, 1e4])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_clipped_gradients_are_pytorch_s(kind: str, max_norm: float, scaled: bool, fused: bool) -> None:
    ours, theirs = network(), network()
    flat = FlatOptimizer(ours, settings(optimizer=kind, clip_grad=max_norm), fused=fused)
    optimizer = torch_optimizer(theirs, kind, bn_weight_decay=False, nesterov=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0) if scaled else NO_SCALING
    for step in range(4):
        torch.manual_seed(step)
        x = torch.randn(4, 3, 8, 8)
        scaler.scale(ours(x).square().mean()).backward()
        flat.step(scaler)
        optimizer.zero_grad()
        theirs(x).square().mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_norm)
        assert (norm > max_norm) == (max_norm < 1)
        optimizer.step()
        if scaled:
            scaler.update()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_count_is_restored_and_a_skipped_step_not_counted(fused: bool) -> None:
    model, other = network(), network()
    flat = FlatOptimizer(model, settings(optimizer="adamw"), fused=fused)
    for step in range(3):
        backward(model, step)
        if step == 1:
            model[0].weight.grad.fill_(torch.nan)
        flat.step(NO_SCALING)
    assert {float(state["step"]) for state in flat.state_dict().values()} == {2.0}
    other.load_state_dict(model.state_dict())
    restored = FlatOptimizer(other, settings(optimizer="adamw"), fused=fused)
    restored.load_state_dict(flat.state_dict())
    for one, optimizer in ((model, flat), (other, restored)):
        backward(one, 7)
        optimizer.step(NO_SCALING)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_learning_rates_fall_towards_the_stem_as_timm_s(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=5)
    # timm's groups are blocks; coarse ones are stages.
    matcher = theirs.group_matcher
    monkeypatch.setattr(theirs, "group_matcher", lambda coarse: matcher(coarse=True))
    names = {parameter: name for name, parameter in theirs.named_parameters()}
    expected = {
        names[parameter]: group["lr_scale"]
        for group in param_groups_layer_decay(theirs, weight_decay=0.05, layer_decay=0.7)
        for parameter in group["params"]
    }
    model = create_model("efficientnet-lite0", num_classes=5)
    flat = FlatOptimizer(model, settings(optimizer="adamw", layer_decay=0.7), parts_of(model))
    found = {parameter: group.lr_factor for group in flat.groups for parameter in group.names}
    for parameter, name in {
        "stem.conv.weight": "conv_stem.weight",
        "layers.0.block0.depsep.conv.weight": "blocks.0.0.conv_dw.weight",
        "layers.3.block1.depsep.bn.weight": "blocks.3.1.bn2.weight",
        "layers.6.block0.depsep.conv.weight": "blocks.6.0.conv_dw.weight",
        "features.conv.weight": "conv_head.weight",
        "classifier.fc.weight": "classifier.weight",
    }.items():
        assert found[parameter] == pytest.approx(expected[name]), parameter
    assert len(set(found.values())) == 9
