"""The classifier that is fitted before fine-tuning is scikit-learn's, in any number of processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effnet.runtime.errors import UserError
from effnet.training.checkpoint import read_checkpoint
from effnet.training.losses import BinaryCrossEntropy, CrossEntropy
from effnet.training.probe import Examples, _held_out, fit
from effnet.training.run import train
from tests.runs import quick_recipe, records
from tests.training.processes import in_processes
from tests.training.test_resume_exact import exact

linear_model = pytest.importorskip("sklearn.linear_model", reason="extra sample")

STRENGTH = 0.05


def examples(views: int) -> Examples:
    torch.manual_seed(0)
    targets = torch.randint(0, 3, (60,))
    features = torch.randn(60, views, 8) + 4 + torch.randn(3, 8)[targets][:, None]
    return Examples(features, targets, None)


def scaled(features: torch.Tensor) -> np.ndarray[Any, Any]:
    rows = features.flatten(0, 1).double().numpy()
    return (rows - rows.mean(0)) / (rows - rows.mean(0)).std()


@pytest.mark.parametrize("views", [1, 2])
def test_one_label_is_scikit_learn_s(views: int) -> None:
    given = examples(views)
    start = fit(given, CrossEntropy(), 1.0, 3)
    ours = fit(given, CrossEntropy(), STRENGTH, 3, start)
    rows, targets = scaled(given.features), given.targets.repeat_interleave(views).numpy()
    theirs = linear_model.LogisticRegression(C=1 / (STRENGTH * len(rows)), tol=1e-8, max_iter=1000)
    theirs.fit(rows, targets)
    logits = given.features.flatten(0, 1) @ ours.weight.T + ours.bias
    probabilities = torch.from_numpy(theirs.predict_proba(rows)).float()
    torch.testing.assert_close(logits.softmax(1), probabilities, rtol=1e-3, atol=1e-3)


def test_several_labels_and_weights_are_scikit_learn_s() -> None:
    one = examples(views=1)
    targets = torch.stack([one.targets == 0, one.targets > 0, torch.rand(60) > 0.4], 1).float()
    weights = torch.rand(60) + 0.5
    ours = fit(Examples(one.features, targets, weights), BinaryCrossEntropy(), STRENGTH, 3)
    logits = one.features[:, 0] @ ours.weight.T + ours.bias
    for label in range(3):
        theirs = linear_model.LogisticRegression(C=1 / (STRENGTH * 60 * 3), tol=1e-8, max_iter=1000)
        theirs.fit(scaled(one.features), targets[:, label].numpy(), sample_weight=weights.numpy())
        expected = torch.from_numpy(theirs.predict_proba(scaled(one.features))[:, 1]).float()
        torch.testing.assert_close(logits[:, label].sigmoid(), expected, rtol=1e-3, atol=1e-3)


def test_a_fifth_of_each_class_is_held_out() -> None:
    targets = torch.tensor([2] * 4 + [0] * 10 + [1] * 5)[torch.randperm(19)]
    held_out = _held_out(targets)
    assert [int(held_out[targets == label].sum()) for label in range(3)] == [2, 1, 0]
    assert int(_held_out(torch.zeros(11, 3)).sum()) == 2


@pytest.fixture(scope="module")
def weights(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of three classes."""
    workspace = tmp_path_factory.mktemp("weights")
    train(quick_recipe(workspace, epochs=1, training_only=True), images)
    return workspace / "checkpoint.pth.tar"


def probing(workspace: Path, weights: Path, **changes: Any) -> dict[str, Any]:
    return {
        "pretrained_from_file": str(weights),
        "probe": True,
        "epochs": 1,
        "freeze": "backbone",
        "label_smoothing": 0.0,
        "training_only": True,
        **changes,
    }


def test_a_run_starts_from_the_fitted_classifier(images: Path, tmp_path: Path, weights: Path) -> None:
    """At a learning rate of almost nothing, it is what the run ends with."""
    settings = probing(tmp_path, weights, lr=1e-12, use_ema=0.9)
    train(quick_recipe(tmp_path / "one", **settings), images)
    in_processes(2, train, quick_recipe(tmp_path / "two", **settings), images)
    before = read_checkpoint(weights)["state_dict"]
    one, two = (read_checkpoint(tmp_path / name / "checkpoint.pth.tar") for name in ("one", "two"))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, before[name]) == ("classifier" not in name), name
        torch.testing.assert_close(value, two["state_dict"][name], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(value, one["state_dict_ema"][name], rtol=1e-5, atol=1e-6)
    (event,) = [record["data"] for record in records(tmp_path / "one", "event")]
    assert event["images"] == 36
    assert event["held_out_loss"] < np.log(3)


def test_a_resumed_run_goes_on_without(images: Path, tmp_path: Path, weights: Path) -> None:
    exact(quick_recipe(tmp_path, **probing(tmp_path, weights)), images, tmp_path, 2)


def test_images_that_have_no_files_are_refused(tmp_path: Path, weights: Path) -> None:
    settings = probing(tmp_path, weights, data_backend="synthetic", num_classes=3)
    with pytest.raises(UserError, match="--probe: --data-backend synthetic can't read"):
        train(quick_recipe(tmp_path, **settings), None)
