"""Several processes with Gloo do what one does."""

import json
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from effnet.data import prepare_sample
from effnet.inference.evaluate import evaluate
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.processes import joined_processes
from effnet.training.checkpoint import read_checkpoint
from effnet.training.run import train
from effnet.training.sync_bn import with_sync_batch_norm
from tests.training.processes import in_processes

pytestmark = pytest.mark.usefixtures("small_networks")

GLOBAL_BATCH = 16
STEPS = 20
# At higher rates a small network's training is chaotic: the last bit of a sum over processes grows to 1e-3 in 20 steps.
# RMSprop does not tell a gradient's sum from its mean; SGD does.
OPTIMIZERS: dict[int, dict[str, Any]] = {
    2: {"optimizer": "sgd", "lr": 4e-4},
    4: {"optimizer": "rmsprop", "lr": 5e-5},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the sample 20 steps of training images, and 57 for validation, which 2 and 4 don't divide."""
    pytest.importorskip("sklearn", reason="extra sample")
    root = tmp_path_factory.mktemp("digits")
    prepare_sample(root / "all")
    for split, count in (("train", GLOBAL_BATCH * STEPS), ("val", 57)):
        for path in islice(_by_turns(root / "all" / split), count):
            target = root / "some" / path.relative_to(root / "all")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return root / "some"


def _by_turns(split: Path) -> Iterator[Path]:
    """Files of a split, one of each class after the other."""
    folders = [sorted(folder.iterdir()) for folder in sorted(split.iterdir())]
    for row in zip(*folders, strict=False):
        yield from row


def recipe(workspace: Path, processes: int, **changes: Any) -> Recipe:
    values = {
        "arch": "efficientnet-b0",
        "image_size": 32,
        "resize": 32,
        "dropout": 0.0,
        "survival_prob": 1.0,
        "mixup": 0.0,  # each process draws its own pairs
        "batch_size": GLOBAL_BATCH // processes,
        "epochs": 1,
        "use_ema": 0.9,
        "sync_bn": True,
        "workers": 0,
        "print_freq": 1,
        "device": "cpu",
        "workspace": str(workspace),
    }
    return Recipe().replace({**values, **changes})


def losses(workspace: Path) -> list[float]:
    records = map(json.loads, (workspace / "report.json").read_text().splitlines())
    return [record["data"]["train.loss"] for record in records if record["type"] == "iteration"]


@pytest.fixture(scope="module")
def alone(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the workspaces of trainings by one process, named after the optimizer."""
    workspace = tmp_path_factory.mktemp("alone")
    for settings in OPTIMIZERS.values():
        train(recipe(workspace / settings["optimizer"], 1, **settings), digits)
    return workspace


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_train_as_one(digits: Path, alone: Path, tmp_path: Path, processes: int) -> None:
    settings = OPTIMIZERS[processes]
    alone /= settings["optimizer"]
    metrics = in_processes(processes, train, recipe(tmp_path, processes, **settings), digits)
    assert len(losses(tmp_path)) == STEPS
    assert losses(tmp_path) == pytest.approx(losses(alone), abs=1e-4)
    one = read_checkpoint(alone / "checkpoint.pth.tar")
    many = read_checkpoint(tmp_path / "checkpoint.pth.tar")
    for entry in ("state_dict", "state_dict_ema"):
        for key, value in one[entry].items():
            torch.testing.assert_close(many[entry][key], value, rtol=1e-2, atol=1e-3)
    # The average is taken from the same start in every process, so all report the same of it.
    assert len({each["val_ema.loss"] for each in metrics}) == 1
    assert one["progress"]["step"] == many["progress"]["step"] == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_validation_counts_every_image_once(
    digits: Path, alone: Path, tmp_path: Path, processes: int
) -> None:
    checkpoint = {"resume": str(alone / "sgd/checkpoint.pth.tar"), "evaluate": True}
    one = evaluate(recipe(tmp_path / "one", 1, **checkpoint), digits)
    assert one["val.images"] == 57
    for many in in_processes(processes, evaluate, recipe(tmp_path, processes, **checkpoint), digits):
        for name in ("val.images", "val.top1", "val.top5", "val_ema.top1"):
            assert many[name] == one[name], name
        assert many["val.loss"] == pytest.approx(one["val.loss"], rel=1e-6)


@pytest.mark.slow
def test_accumulated_gradients_are_summed_once(digits: Path, tmp_path: Path) -> None:
    settings = {
        "sync_bn": False,
        "optimizer_batch_size": 2 * GLOBAL_BATCH,
        "training_only": True,
        "bn_momentum": 0.1,
    }
    in_processes(2, train, recipe(tmp_path, 2, **settings), digits)
    assert read_checkpoint(tmp_path / "checkpoint.pth.tar")["progress"]["step"] == STEPS // 2


@pytest.mark.slow
def test_the_last_group_is_divided_by_what_it_holds(digits: Path, tmp_path: Path) -> None:
    # Almost without momentum the optimizer's buffer is the last gradient, here of two batches in place of three.
    settings = {"optimizer": "sgd", "lr": 1e-6, "momentum": 1e-9, "weight_decay": 0.0, "training_only": True}
    settings |= {"optimizer_batch_size": 3 * GLOBAL_BATCH, "use_ema": None}
    train(recipe(tmp_path / "one", 1, **settings), digits)
    in_processes(2, train, recipe(tmp_path / "two", 2, **settings), digits)
    one, two = (read_checkpoint(tmp_path / name / "checkpoint.pth.tar") for name in ("one", "two"))
    assert one["progress"]["step"] == two["progress"]["step"] == STEPS // 3 + 1
    for name, state in one["optimizer"].items():
        expected = state["momentum_buffer"]
        difference = (two["optimizer"][name]["momentum_buffer"] - expected).norm()
        assert difference < 0.05 * expected.norm() + 1e-6, name


def synchronised_norm(batches: list[torch.Tensor]) -> dict[str, Any]:
    """Output, gradients and statistics of a BatchNorm over the batches of all processes, in one of them."""
    with joined_processes("cpu") as processes:
        norm = with_sync_batch_norm(nn.Sequential(nn.BatchNorm2d(3, momentum=0.3)))
        x = batches[processes.rank].requires_grad_()
        y = norm(x)
        (y * weights_like(x)).sum().backward()
        gradients = [parameter.grad for parameter in norm.parameters()]
        return {
            "y": y.detach(),
            "dx": x.grad,
            "scale": processes.sum(gradients[0]),
            "shift": processes.sum(gradients[1]),
            **norm.state_dict(),
        }


def weights_like(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x.detach() * 7)


def test_sync_batch_norm_is_that_of_the_whole_batch() -> None:
    random = torch.Generator().manual_seed(0)
    batches = [torch.randn(size, 3, 5, 4, generator=random) + 2 for size in (3, 5)]
    whole = torch.cat(batches).requires_grad_()
    norm = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3))
    y = norm(whole)
    (y * weights_like(whole)).sum().backward()
    parts = in_processes(2, synchronised_norm, batches)
    torch.testing.assert_close(torch.cat([part["y"] for part in parts]), y.detach())
    torch.testing.assert_close(torch.cat([part["dx"] for part in parts]), whole.grad)
    for part in parts:
        torch.testing.assert_close(part["scale"], norm[0].weight.grad)
        torch.testing.assert_close(part["shift"], norm[0].bias.grad)
        for key, value in norm.state_dict().items():
            torch.testing.assert_close(part[key], value)


def refused(resumes: list[str | None], settings: Recipe, digits: Path) -> str:
    try:
        train(settings.replace({"resume": resumes[int(os.environ["RANK"])]}), digits)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_resuming_from_different_checkpoints_is_refused(digits: Path, alone: Path, tmp_path: Path) -> None:
    resumes = [str(alone / "sgd/checkpoint.pth.tar"), None]
    for message in in_processes(2, refused, resumes, recipe(tmp_path, 2), digits):
        assert "machines must share the --workspace" in message
