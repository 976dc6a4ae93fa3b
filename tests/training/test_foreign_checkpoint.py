"""Checkpoints as NVIDIA's implementation writes them on several GPUs: evaluated, and gone on with by value."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from effnet.cli import main
from effnet.recipe import ResolvedOptimizer
from effnet.runtime.errors import UserError
from effnet.training.checkpoint import read_checkpoint
from effnet.training.foreign_checkpoint import training_state
from effnet.training.optimizer import FlatOptimizer
from effnet.training.run import train
from effnet.weights import create_model
from tests.runs import quick_recipe, records

pytestmark = pytest.mark.usefixtures("small_networks")

ARCH = "efficientnet-lite0"
EPOCHS = 2


def optimizer_of(model: nn.Module, name: str) -> torch.optim.Optimizer:
    """PyTorch's over two groups: the weights that decay, then BatchNorm's, which do not."""
    norms = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in norms], "weight_decay": 1e-5},
        {"params": [p for p in model.parameters() if id(p) in norms], "weight_decay": 0.0},
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    return torch.optim.RMSprop(groups, lr=0.01, alpha=0.9, momentum=0.9, eps=1e-3)


def foreign(arch: str = ARCH, optimizer: str = "rmsprop", steps: int = 1) -> dict[str, Any]:
    """A checkpoint of two epochs of an 8-GPU run, whose model PyTorch's own optimizer has moved."""
    torch.manual_seed(0)
    model = create_model(arch, num_classes=3)
    updates = optimizer_of(model, optimizer)
    for _ in range(steps):
        model(torch.randn(2, 3, 32, 32)).square().mean().backward()
        updates.step()
    weights = {f"module.{key}": value.clone() for key, value in model.state_dict().items()}
    averaged = {key: value * 0.5 for key, value in weights.items()}
    return {
        "epoch": EPOCHS,
        "best_prec1": 12.5,
        "state_dict": weights,
        "state_dict_ema": averaged,
        "optimizer": copy.deepcopy(updates.state_dict()),
    }


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Any]:
    return foreign()


def by_name(checkpoint: dict[str, Any], arch: str = ARCH) -> dict[str, dict[str, torch.Tensor]]:
    """Each parameter's optimizer state, found by the order in which the groups were made."""
    model = create_model(arch, num_classes=3)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = optimizer_of(model, "sgd").param_groups
    order = [names[id(p)] for group in groups for p in group["params"]]
    return {name: checkpoint["optimizer"]["state"][number] for number, name in enumerate(order)}


def saved(tmp_path: Path, content: dict[str, Any]) -> str:
    path = tmp_path / "theirs.pth.tar"
    torch.save(content, path)
    return str(path)


def test_evaluating_gives_the_accuracy_of_the_weights(
    checkpoint: dict[str, Any], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [
        str(images),
        "--arch",
        ARCH,
        "--image-size",
        "32",
        "--workers",
        "0",
        "--device",
        "cpu",
        "--json",
    ]
    common += ["--evaluate", "--epochs", "1", "--workspace", str(tmp_path)]
    bare = {key.removeprefix("module."): value for key, value in checkpoint["state_dict"].items()}
    torch.save(bare, tmp_path / "bare.pth")
    assert main(["train", *common, "--resume", saved(tmp_path, checkpoint)]) == 0
    assert main(["train", *common, "--pretrained-from-file", str(tmp_path / "bare.pth")]) == 0
    capsys.readouterr()
    resumed, plain = (record["data"] for record in records(tmp_path, "summary"))
    assert resumed["val.loss"] == pytest.approx(plain["val.loss"], rel=1e-6)
    assert resumed["val_ema.loss"] != pytest.approx(plain["val.loss"], rel=1e-3)


def settings(**changes: Any) -> ResolvedOptimizer:
    complete = {
        "batch_size": 64,
        "lr": 0.01,
        "base_lr": 0.01,
        "optimizer_batch_size": 64,
        "weight_decay": 1e-5,
    }
    return ResolvedOptimizer(**{**complete, **changes})


@pytest.mark.parametrize("optimizer", ["rmsprop", "sgd"])
@pytest.mark.parametrize("arch", [ARCH, "efficientnet-b0"])
def test_weights_momenta_and_place_are_taken_over(arch: str, optimizer: str) -> None:
    theirs = foreign(arch, optimizer)
    model = create_model(arch, num_classes=3)
    ours = FlatOptimizer(model, settings(optimizer=optimizer))
    state = training_state(theirs, model, ours.state_dict(), steps_per_epoch=7)
    model.load_state_dict(state["state_dict"])
    ours.load_state_dict(state["optimizer"])
    for key, value in model.state_dict().items():
        assert torch.equal(value, theirs["state_dict"][f"module.{key}"]), key
        assert torch.equal(state["state_dict_ema"][key], theirs["state_dict_ema"][f"module.{key}"]), key
    expected = by_name(theirs, arch)
    for name, kinds in ours.state_dict().items():
        assert kinds.keys() == (
            {"momentum_buffer"} if optimizer == "sgd" else {"square_avg", "momentum_buffer"}
        )
        for kind, value in kinds.items():
            assert torch.equal(value, expected[name][kind]), (name, kind)
            assert value.abs().sum() > 0 or expected[name][kind].abs().sum() == 0
    assert state["progress"] == {"epoch": EPOCHS, "step": 14, "best_top1": 12.5}
    assert state["loader"] == {"epoch": EPOCHS, "step": 0}


def test_the_next_step_is_pytorch_s(checkpoint: dict[str, Any]) -> None:
    """One more step with the same gradients: PyTorch's optimizer and ours, both from the checkpoint."""
    bare = {key.removeprefix("module."): value for key, value in checkpoint["state_dict"].items()}
    theirs, model = create_model(ARCH, num_classes=3), create_model(ARCH, num_classes=3)
    theirs.load_state_dict(bare)
    plain = optimizer_of(theirs, "rmsprop")
    plain.load_state_dict(copy.deepcopy(checkpoint["optimizer"]))
    ours = FlatOptimizer(model, settings(rmsprop_alpha=0.9, rmsprop_eps=1e-3))
    state = training_state(checkpoint, model, ours.state_dict(), steps_per_epoch=1)
    model.load_state_dict(state["state_dict"])
    ours.load_state_dict(state["optimizer"])
    torch.manual_seed(1)
    for one, other in zip(theirs.parameters(), model.parameters(), strict=True):
        one.grad = torch.randn(one.shape)
        other.grad = one.grad.clone()
    plain.step()
    ours.set_lr(0.01)
    ours.step(torch.amp.GradScaler("cpu", enabled=False))
    for one, other in zip(theirs.parameters(), model.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-7)


def test_training_goes_on(checkpoint: dict[str, Any], images: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "epochs": 3,
        "use_ema": 0.9,
        "lr": 1e-9,
        "resume": saved(tmp_path, checkpoint),
    }
    train(quick_recipe(tmp_path, **settings), images)
    (epoch,) = records(tmp_path, "epoch")
    assert epoch["epoch"] == EPOCHS  # the third, counted from 0
    written = read_checkpoint(tmp_path / "checkpoint.pth.tar")
    assert written["epoch"] == 3
    assert written["best_prec1"] >= 12.5
    # A learning rate of nearly nothing leaves the weights where the checkpoint had them.
    for name in ("classifier.fc.weight", "layers.0.block0.depsep.conv.weight"):
        assert torch.allclose(
            written["state_dict"][name], checkpoint["state_dict"][f"module.{name}"], atol=1e-6
        )


def without(checkpoint: dict[str, Any], *entries: str) -> dict[str, Any]:
    return {entry: value for entry, value in checkpoint.items() if entry not in entries}


def test_what_is_missing_is_named(checkpoint: dict[str, Any]) -> None:
    model = create_model(ARCH, num_classes=3)
    rmsprop = FlatOptimizer(model, settings()).state_dict()

    def refused(content: dict[str, Any], words: str) -> None:
        with pytest.raises(UserError, match=words):
            training_state(content, model, rmsprop, steps_per_epoch=1)

    refused(
        without(checkpoint, "epoch", "optimizer"), "holds no epoch and no optimizer; for its weights alone"
    )
    refused(
        foreign(optimizer="sgd"),
        "no square_avg of stem.conv.weight, but momentum_buffer; give the --optimizer",
    )
    refused(foreign(steps=0), "no square_avg and no momentum_buffer of stem.conv.weight, but nothing")
    halved = copy.deepcopy(checkpoint["optimizer"])
    halved["param_groups"][0]["params"] = halved["param_groups"][0]["params"][:10]
    refused({**checkpoint, "optimizer": halved}, "a group of 10 parameters .* is neither all")
    halved["param_groups"] = halved["param_groups"][1:]
    refused({**checkpoint, "optimizer": halved}, "has no state of stem.conv.weight")
    with pytest.raises(UserError, match="don't fit"):
        training_state(foreign("efficientnet-b0"), model, rmsprop, steps_per_epoch=1)
