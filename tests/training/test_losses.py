"""The losses and their gradients beside PyTorch's and torchvision's."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from effnet.data.labels import SplitLabels
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.training.balance import balanced_weights, log_shares, read_weights
from effnet.training.losses import LOSSES, BinaryCrossEntropy, BinaryFocal, CrossEntropy, Focal, Loss
from effnet.training.objective import build_loss
from tests.runs import resolved

N, C = 12, 5
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0])
EACH = torch.linspace(0.1, 2.0, N)


def logits() -> Tensor:
    return (3 * torch.randn(N, C, generator=torch.Generator().manual_seed(0))).requires_grad_()


def indices() -> Tensor:
    return torch.arange(N) % C


def shares() -> Tensor:
    return torch.rand(N, C, generator=torch.Generator().manual_seed(1)).softmax(1)


def answers() -> Tensor:
    return (torch.rand(N, C, generator=torch.Generator().manual_seed(2)) < 0.4).float()


def gradient(loss: Tensor, of: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, of, retain_graph=True)
    return found


def check(loss: Loss, targets: Tensor, weights: Tensor | None, expected: Tensor, of: Tensor) -> None:
    ours = loss(of, targets, weights)
    torch.testing.assert_close(ours, expected)
    assert expected > 0
    torch.testing.assert_close(gradient(ours, of), gradient(expected, of))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("targets", [indices(), shares()])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_pytorchs(smoothing: float, targets: Tensor, weights: Tensor | None) -> None:
    x = logits()
    expected = F.cross_entropy(x, targets, weight=weights, label_smoothing=smoothing)
    check(CrossEntropy(smoothing=smoothing, weights=weights), targets, None, expected, x)
    # Images that all count the same are images without weights.
    check(CrossEntropy(smoothing=smoothing, weights=weights), targets, torch.ones(N), expected, x)


def test_an_image_of_weight_2_counts_as_two() -> None:
    x, twice = logits(), torch.arange(N).repeat_interleave(torch.arange(N) % 3)
    expected = F.cross_entropy(x[twice], indices()[twice], reduction="sum") / N
    check(CrossEntropy(), indices(), torch.arange(N).float() % 3, expected, x)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("each", [None, EACH])
def test_binary_cross_entropy_is_pytorchs(weights: Tensor | None, each: Tensor | None) -> None:
    x = logits()
    expected = F.binary_cross_entropy_with_logits(
        x, answers(), weight=None if each is None else each[:, None], pos_weight=weights
    )
    check(BinaryCrossEntropy(weights=weights), answers(), each, expected, x)


def test_smoothing_with_several_labels_is_over_yes_and_no() -> None:
    x = logits()
    expected = F.binary_cross_entropy_with_logits(x, 0.9 * answers() + 0.05)
    check(BinaryCrossEntropy(smoothing=0.1), answers(), None, expected, x)
    check(BinaryFocal(smoothing=0.1, gamma=0.0), answers(), None, expected, x)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_with_several_labels_is_torchvisions(gamma: float) -> None:
    x = logits()
    expected = sigmoid_focal_loss(x, answers(), alpha=-1, gamma=gamma, reduction="mean")
    check(BinaryFocal(gamma=gamma), answers(), None, expected, x)
    # A weight of 3 for positive answers is torchvision's alpha of 3/4, times 4.
    weighted = 4 * sigmoid_focal_loss(x, answers(), alpha=0.75, gamma=gamma, reduction="mean")
    check(BinaryFocal(gamma=gamma, weights=torch.full((C,), 3.0)), answers(), None, weighted, x)


def test_focal_loss_of_two_classes_is_that_of_one_answer() -> None:
    x = torch.randn(N, 2, generator=torch.Generator().manual_seed(3)).requires_grad_()
    target = torch.arange(N) % 2
    expected = sigmoid_focal_loss(x[:, 1] - x[:, 0], target.float(), alpha=-1, gamma=2.0, reduction="mean")
    check(Focal(gamma=2.0), target, None, expected, x)


@pytest.mark.parametrize("targets", [indices(), shares()])
def test_focal_loss_without_gamma_is_cross_entropy(targets: Tensor) -> None:
    x = logits()
    expected = (
        F.cross_entropy(x, targets, weight=WEIGHTS, label_smoothing=0.1, reduction="none") * EACH
    ).mean()
    check(Focal(smoothing=0.1, weights=WEIGHTS), targets, EACH, expected, x)


def test_adjusted_logits_take_the_shares_away() -> None:
    x, shares_of_classes = logits(), torch.tensor([0.4, 0.3, 0.2, 0.06, 0.04])
    scaled = (x.exp() * shares_of_classes) / (x.exp() * shares_of_classes).sum(1, keepdim=True)
    expected = F.nll_loss(scaled.log(), indices())
    check(CrossEntropy(offsets=shares_of_classes.log()), indices(), None, expected, x)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("task", ["single", "multi"])
def test_far_logits_give_finite_gradients(name: str, task: str) -> None:
    x = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    row = LOSSES[name]
    loss = (row.multi if task == "multi" else row.single)(gamma=2.0, smoothing=0.1)
    value = loss(x, torch.tensor([0, 0]), None)
    assert value.isfinite()
    assert gradient(value, x).isfinite().all()


def labels(counts: list[int]) -> SplitLabels:
    return SplitLabels(np.repeat(np.arange(len(counts), dtype=np.int32), counts))


def test_balanced_weights_are_scikit_learns() -> None:
    given = labels([3, 11, 0, 6])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=given.targets)
    assert balanced_weights(given, 4)[[0, 1, 3]].tolist() == expected.tolist()
    assert balanced_weights(given, 4)[2] == 0
    np.testing.assert_allclose(np.exp(log_shares(labels([1, 3]), 2)), [0.25, 0.75])


def test_balanced_weights_of_several_labels_are_odds() -> None:
    several = SplitLabels(np.array([[1, 0, 1], [1, 0, 0], [1, 0, 0], [0, 0, 0]], dtype=np.uint8))
    assert balanced_weights(several, 3).tolist() == [1 / 3, 4.0, 3.0]
    np.testing.assert_allclose(np.exp(log_shares(several, 3)), [3.0, 1 / 3, 1 / 3])


@pytest.mark.parametrize("name", ["w.csv", "header.csv", "w.json", "w.yaml"])
def test_weights_from_a_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".csv":
        with path.open("w") as file:
            head = [["class", "weight"]] if name == "header.csv" else []
            csv.writer(file).writerows([*head, ["b, c", 2], ["a", 0.5]])
    else:
        path.write_text(json.dumps({"b, c": 2, "a": 0.5}))
    assert read_weights(str(path), ["a", "b, c"]).tolist() == [0.5, 2.0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("w.csv", "a,1\n", "no weight for class b; name every class"),
        ("w.csv", "a,1\nb,1\nc,1\n", "c is no class"),
        ("w.csv", "a,1\na,2\nb,1\n", "a is there twice"),
        ("w.csv", "a\n", "'a' is not a class and its weight"),
        ("w.csv", "a,-1\nb,1\n", "weight of a must be a number of 0 or more, not -1"),
        ("w.csv", "a,0\nb,0\n", "all weights are 0"),
        ("w.json", '{"a": true, "b": 1}', "weight of a must be a number"),
        ("w.json", "[1, 2]", "holds no object"),
        ("w.json", "{", "not JSON"),
        ("w.yaml", "a: [", "is not YAML"),
        ("w.yaml", "- a", "holds no names with values"),
        ("w.txt", "", "must be none, auto, or a file that ends in .csv"),
        ("missing.csv", None, "No such file"),
    ],
)
def test_a_file_that_is_no_weights(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_weights(str(path), ["a", "b"])
    assert str(caught.value).startswith(f"--class-weights {path}")
    assert "\n" not in str(caught.value)


def test_a_recipe_chooses_the_loss() -> None:
    def built(**changes: object) -> Loss:
        recipe = resolved(Recipe().replace({"num_classes": 2, **changes}), num_classes=2)
        return build_loss(recipe, labels([1, 3]), ["a", "b"])

    plain = built()
    assert type(plain) is CrossEntropy
    assert (plain.smoothing, plain.weights, plain.offsets) == (0.1, None, None)
    several = built(task="multi", loss="focal", focal_gamma=1.5, class_weights="auto", logit_adjustment=2.0)
    assert type(several) is BinaryFocal
    assert several.gamma == 1.5
    torch.testing.assert_close(several.weights, torch.tensor([3.0, 1 / 3]))
    torch.testing.assert_close(several.offsets, torch.tensor([-2 * math.log(3), 2 * math.log(3)]))
    with pytest.raises(UserError, match="--class-weights auto: --data-backend synthetic"):
        build_loss(resolved(Recipe().replace({"class_weights": "auto"})), None, ["a"])
