"""The mean of the last epochs' weights: against the checkpoints it is of, after interruptions, in several processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import effnet
from effnet.inference.evaluate import evaluate
from effnet.recipe import Recipe
from effnet.training.checkpoint import read_checkpoint
from effnet.training.run import train
from effnet.weights.files import read_weights
from tests.runs import quick_recipe, records, write_images
from tests.training.processes import in_processes
from tests.training.resumed import assert_equal, assert_same, interrupted

FILE = "model_averaged.safetensors"


def recipe(workspace: Path, **changes: Any) -> Recipe:
    values = {"batch_size": 12, "epochs": 3, "lr": 0.01, "average_last": 2, "gather_checkpoints": -1}
    return quick_recipe(workspace, **{**values, **changes})


def plain_mean(workspace: Path, epochs: list[int]) -> dict[str, Tensor]:
    """The mean of the checkpoints of epochs, in double precision; the last one's counters."""
    states = [read_checkpoint(workspace / f"checkpoint_{n:04}.pth.tar")["state_dict"] for n in epochs]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in states[-1].items()
    }


def assert_mean(workspace: Path, epochs: list[int]) -> None:
    found, expected = read_weights(workspace / FILE).state_dict, plain_mean(workspace, epochs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.to(found[name].dtype), rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workspace of an uninterrupted run."""
    workspace = tmp_path_factory.mktemp("whole")
    train(recipe(workspace), images)
    return workspace


def test_it_is_the_mean_of_the_last_checkpoints(whole: Path) -> None:
    assert_mean(whole, [1, 2])
    own = read_checkpoint(whole / "checkpoint.pth.tar")["state_dict"]
    assert not torch.equal(read_weights(whole / FILE).state_dict["stem.conv.weight"], own["stem.conv.weight"])


def test_it_is_validated_once_and_used_as_any_weights(whole: Path, images: Path, tmp_path: Path) -> None:
    epochs = [record["data"] for record in records(whole, "epoch")]
    assert ["val_avg.loss" in data for data in epochs] == [False, False, True]
    file = str(whole / FILE)
    own = {"pretrained_from_file": file, "evaluate": True}
    metrics = evaluate(quick_recipe(tmp_path, **own), images)
    assert metrics["val.loss"] == pytest.approx(epochs[-1]["val_avg.loss"], abs=1e-5)
    assert metrics["val.top1"] == epochs[-1]["val_avg.top1"]
    classifier = effnet.load(file)
    assert classifier.classes == ("circle", "square", "star")
    assert len(classifier(images / "val")) == 15


def test_the_mean_of_one_epoch_is_its_checkpoint_with_its_confidence(tmp_path: Path) -> None:
    write_images(tmp_path / "images" / "train", {"circle": 12, "square": 12}, coloured=True)
    write_images(tmp_path / "images" / "val", {"circle": 12, "square": 12}, coloured=True)
    train(recipe(tmp_path, epochs=1, average_last=1), tmp_path / "images")
    mean, own = read_weights(tmp_path / FILE), read_weights(tmp_path / "checkpoint.pth.tar")
    assert_equal(mean.state_dict, own.state_dict)
    assert mean.metadata == own.metadata
    assert mean.metadata is not None
    assert mean.metadata.confidence is not None


def test_a_training_is_the_same_with_and_without(whole: Path, images: Path, tmp_path: Path) -> None:
    train(recipe(tmp_path, average_last=0), images)
    one, other = (dict(read_checkpoint(path / "checkpoint.pth.tar")) for path in (whole, tmp_path))
    assert one.pop("average_last")["epochs"] == 2
    assert "average_last" not in other
    for name in ("state_dict", "optimizer"):
        assert_equal(one[name], other[name])
    assert not (tmp_path / FILE).exists()


# One look after each of three steps of an epoch, and one after each of two batches of a validation, the mean's last.
@pytest.mark.parametrize("look", [7, 15, 17])
def test_an_interrupted_run_has_the_same_mean(look: int, whole: Path, images: Path, tmp_path: Path) -> None:
    assert interrupted(recipe(tmp_path), images, look)
    train(recipe(tmp_path, resume="auto"), images)
    assert_same(tmp_path, whole)
    one, other = read_weights(tmp_path / FILE), read_weights(whole / FILE)
    assert_equal(one.state_dict, other.state_dict)
    assert one.metadata == other.metadata
    assert one.metadata is not None


@pytest.mark.slow
def test_two_processes_without_validation(images: Path, tmp_path: Path) -> None:
    in_processes(2, train, recipe(tmp_path, batch_size=6, epochs=2, training_only=True), images)
    assert_mean(tmp_path, [0, 1])
