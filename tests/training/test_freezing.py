"""Freezing by parts, unfreezing epoch by epoch, and the modes of the layers."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from effnet.recipe import ModelSettings
from effnet.runtime.errors import UserError
from effnet.training.checkpoint import read_checkpoint
from effnet.training.freezing import frozen_parts, held_parts, set_modes
from effnet.training.run import train
from effnet.weights import create_model
from tests.runs import quick_recipe, resolved
from tests.training.processes import in_processes
from tests.training.test_resume_exact import exact, in_several

ARCH = "efficientnet-lite0"
NAMES = ("stem.", *(f"layers.{stage}." for stage in range(7)), "features.", "classifier.")


def names_of(parts: list[nn.Module], model: nn.Module) -> set[str]:
    """Return the parts of the network that hold the parameters of `parts`; none may be held in part."""
    held = {parameter for part in parts for parameter in part.parameters()}
    found: dict[str, set[bool]] = {}
    for name, parameter in model.named_parameters():
        (start,) = [start for start in NAMES if name.startswith(start)]
        found.setdefault(start, set()).add(parameter in held)
    assert all(len(values) == 1 for values in found.values())
    return {name for name, values in found.items() if values == {True}}


@pytest.mark.parametrize(
    ("value", "held"),
    [("none", 0), ("stem", 1), ("1", 2), ("5", 6), ("7", 8), ("backbone", 9)],
)
def test_parts_by_name(value: str, held: int) -> None:
    model = create_model(ARCH, num_classes=3)
    settings = ModelSettings(freeze=value)  # type: ignore[arg-type]
    assert names_of(held_parts(model, settings), model) == set(NAMES[:held])
    assert names_of(frozen_parts(model, settings, epoch=99), model) == set(NAMES[:held])


def test_parts_are_freed_from_the_classifier_on() -> None:
    model = create_model(ARCH, num_classes=3)
    settings = ModelSettings(freeze="backbone", unfreeze_every=2)
    held = [len(names_of(frozen_parts(model, settings, epoch), model)) for epoch in range(20)]
    # The head and the last stage together, then stage by stage.
    assert held == [9, 9, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0, 0, 0]
    assert len(frozen_parts(model, ModelSettings(freeze="2", unfreeze_every=1), epoch=1)) == 2


def test_more_stages_than_there_are() -> None:
    model = create_model("efficientnet-v2-b0", num_classes=3)
    with pytest.raises(UserError, match="--freeze 7: .* has 6 stages"):
        held_parts(model, ModelSettings(arch="efficientnet-v2-b0", freeze="7"))


@pytest.mark.parametrize("bn_statistics", ["batch", "weights"])
def test_modes(tmp_path: Path, bn_statistics: str) -> None:
    model = create_model(ARCH, num_classes=3)
    changes: dict[str, Any] = {"freeze": "3", "bn_statistics": bn_statistics, "pretrained": True}
    set_modes(model, resolved(quick_recipe(tmp_path, **changes), num_classes=3), epoch=0)
    for name, module in model.named_modules():
        frozen = name.startswith(NAMES[:4])
        is_norm = isinstance(module, nn.BatchNorm2d)
        if is_norm or not list(module.children()):
            assert module.training == (not frozen and not (is_norm and bn_statistics == "weights")), name


def start(tmp_path: Path, images: Path) -> Path:
    """Return a file of weights."""
    (tmp_path / "start").mkdir()
    train(quick_recipe(tmp_path / "start", epochs=1, training_only=True), images)
    return tmp_path / "start" / "checkpoint.pth.tar"


def moved(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Return the parts of the network of which anything differs, statistics included."""
    return {
        name
        for name in NAMES
        for key, value in before.items()
        if key.startswith(name) and not torch.equal(value, after[key])
    }


@pytest.mark.slow
def test_what_is_frozen_stays(images: Path, tmp_path: Path) -> None:
    weights = start(tmp_path, images)
    settings = {
        "pretrained_from_file": str(weights),
        "optimizer": "adamw",
        "lr": 1e-3,
        "freeze": "backbone",
        "unfreeze_every": 1,
        "gather_checkpoints": -1,
        "epochs": 3,
        "training_only": True,
        "weight_decay": 0.01,
    }
    train(quick_recipe(tmp_path / "run", **settings), images)
    states = [read_checkpoint(weights)["state_dict"]] + [
        read_checkpoint(tmp_path / "run" / f"checkpoint_{epoch:04}.pth.tar")["state_dict"]
        for epoch in range(3)
    ]
    steps = [moved(before, after) for before, after in pairwise(states)]
    assert steps == [{"classifier."}, {*NAMES[7:]}, {*NAMES[6:]}]


def test_statistics_of_the_weights_stay(images: Path, tmp_path: Path) -> None:
    weights = start(tmp_path, images)
    recipe = quick_recipe(
        tmp_path / "run", pretrained_from_file=str(weights), bn_statistics="weights", epochs=1
    )
    train(recipe, images)
    before, after = (
        read_checkpoint(path)["state_dict"] for path in (weights, tmp_path / "run/checkpoint.pth.tar")
    )
    for name, value in after.items():
        assert torch.equal(value, before[name]) == ("running" in name or "tracked" in name), name


GRADUAL = {
    "optimizer": "adamw",
    "adamw_eps": 1e-3,
    "clip_grad": 1.0,
    "layer_decay": 0.8,
    "freeze": "7",
    "unfreeze_every": 1,
    "batch_size": 8,
    "epochs": 3,
    "use_ema": 0.9,
    "survival_prob": 0.7,
    "lr": 0.001,
}


def test_resumed_while_it_unfreezes(images: Path, tmp_path: Path) -> None:
    exact(quick_recipe(tmp_path, **GRADUAL, training_only=True), images, tmp_path, 6)


@pytest.mark.slow
def test_resumed_while_it_unfreezes_in_several_processes(images: Path, tmp_path: Path) -> None:
    settings = quick_recipe(tmp_path, **GRADUAL).replace(
        {"batch_size": 4, "unfreeze_every": 2, "training_only": True}
    )
    in_several(3, settings, images, tmp_path, 7)


@pytest.mark.slow
def test_two_processes_unfreeze_as_one(images: Path, tmp_path: Path) -> None:
    settings = quick_recipe(tmp_path / "one", **GRADUAL).replace(
        {
            "bn_statistics": "weights",
            "training_only": True,
            "survival_prob": 1.0,
            "dropout": 0.0,
            "mixup": 0.0,
            "adamw_eps": 0.1,
        }
    )
    train(settings.replace({"batch_size": 16}), images)
    in_processes(2, train, settings.replace({"workspace": str(tmp_path / "two")}), images)
    one, two = (
        read_checkpoint(tmp_path / name / "checkpoint.pth.tar")["state_dict"] for name in ("one", "two")
    )
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-4, atol=1e-5, msg=name)
