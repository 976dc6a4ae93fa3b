"""Samplers: how often an epoch shows each image, over processes and after a resume."""

import numpy as np
import pytest

from effnet.data.labels import SplitLabels
from effnet.data.position import TrainOrder
from effnet.data.sampling import SAMPLERS, repeated
from effnet.runtime.errors import UserError

COUNTS = [40, 15, 0, 3, 2]
SINGLE = SplitLabels(np.random.default_rng(0).permutation(np.repeat(np.arange(5, dtype=np.int32), COUNTS)))
SEVERAL = SplitLabels((np.random.default_rng(1).random((60, 3)) < [0.6, 0.1, 0.02]).astype(np.uint8))
WEIGHTED = SplitLabels(SINGLE.targets, np.linspace(0, 3, 60, dtype=np.float32))


def order(name: str, labels: SplitLabels, rank: int = 0, world_size: int = 1) -> TrainOrder:
    draw = SAMPLERS[name].draw
    assert draw is not None
    return TrainOrder(len(labels), 12 // world_size, 3, rank, world_size, lambda n, g: draw(labels, n, g))


def drawn(name: str, labels: SplitLabels, epoch: int = 0) -> np.ndarray:
    return np.concatenate(list(order(name, labels).batches(epoch, 0)))


def test_balanced_shows_every_class_equally_often_and_its_images_in_turn() -> None:
    places = drawn("balanced", SINGLE)
    images = places % 60
    assert np.bincount(SINGLE.targets[images], minlength=5).tolist() == [15, 15, 0, 15, 15]
    shown = np.bincount(images, minlength=60)
    for target, most in enumerate([1, 1, 0, 5, 8]):
        of_class = shown[SINGLE.targets == target]
        assert len(of_class) == 0 or of_class.max() == most >= of_class.min() >= most - 1


def test_balanced_with_several_labels_shows_rare_ones_often() -> None:
    images = drawn("balanced", SEVERAL) % 60
    groups = [*SEVERAL.targets.T.astype(bool), ~SEVERAL.targets.any(1)]
    assert all(group.any() for group in groups)
    for group in groups:
        assert group[images].sum() >= 15
    assert SEVERAL.targets[:, 2].mean() < 0.1


def test_weighted_shows_images_as_their_weights_say() -> None:
    shown = np.bincount(drawn("weighted", WEIGHTED) % 60, minlength=60)
    expected = 60 * WEIGHTED.weights / WEIGHTED.weights.sum()
    assert np.abs(shown - expected).max() < 1
    assert shown[0] == 0


def test_equal_weights_show_every_image_once() -> None:
    equal = SplitLabels(SINGLE.targets, np.full(60, 0.3, np.float32))
    assert sorted(drawn("weighted", equal)) == list(range(60))


@pytest.mark.parametrize(
    ("name", "labels"), [("balanced", SINGLE), ("balanced", SEVERAL), ("weighted", WEIGHTED)]
)
def test_the_order_belongs_to_seed_and_epoch(name: str, labels: SplitLabels) -> None:
    whole = list(order(name, labels).batches(2, 0))
    shared = [list(order(name, labels, rank, 3).batches(2, 0)) for rank in range(3)]
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(batch, np.concatenate([each[step] for each in shared]))
    np.testing.assert_array_equal(whole[3:], list(order(name, labels).batches(2, 3)))
    assert not np.array_equal(drawn(name, labels, 0), drawn(name, labels, 1))
    # Classes are mixed in every batch, not one after the other.
    assert len({int(SINGLE.targets[place % 60]) for place in whole[0]}) > 1


def test_repetitions_of_an_image_are_told_apart() -> None:
    assert repeated(np.array([4, 0, 4, 4, 1, 0]), 10).tolist() == [4, 0, 14, 24, 1, 10]
    places = drawn("balanced", SINGLE)
    assert len(set(places)) == len(places) > len(set(places % 60))


@pytest.mark.parametrize("weights", [None, np.zeros(60), np.full(60, -1.0), np.full(60, np.nan)])
def test_weights_that_can_not_be_sampled_by(weights: np.ndarray | None) -> None:
    labels = SplitLabels(SINGLE.targets, None if weights is None else weights.astype(np.float32))
    with pytest.raises(UserError, match="--sampler weighted: the"):
        drawn("weighted", labels)
