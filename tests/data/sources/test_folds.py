"""Folds beside scikit-learn's."""

from collections import Counter

import numpy as np
import pytest

from effnet.data.sources.folds import fold_numbers
from effnet.runtime.errors import UserError

selection = pytest.importorskip("sklearn.model_selection", reason="extra sample")


@pytest.mark.parametrize("seed", [0, 7, 2**31])
@pytest.mark.parametrize("folds", [2, 5, 7])
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_folds_are_those_of_scikit_learn(folds: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    for targets in (
        random.integers(0, 10, 203),
        np.sort(random.geometric(0.3, 150)),
        np.repeat([3, 1], [9, 30]),
    ):
        expected = np.empty(len(targets), np.int64)
        splitter = selection.StratifiedKFold(folds, shuffle=True, random_state=seed)
        for number, (_, val) in enumerate(splitter.split(targets, targets)):
            expected[val] = number
        assert np.array_equal(fold_numbers(targets, folds, seed), expected)


def test_groups_stay_together_and_classes_keep_their_shares() -> None:
    random = np.random.default_rng(1)
    groups = random.integers(0, 120, 3000)
    targets = (groups % 3 + random.integers(0, 2, 3000)).astype(np.int32)
    folds = fold_numbers(targets, 5, 0, groups)
    assert len(set(zip(groups.tolist(), folds.tolist(), strict=True))) == len(set(groups.tolist()))
    for label, count in Counter(targets.tolist()).items():
        of_fold = np.bincount(folds[targets == label], minlength=5)
        assert abs(of_fold / count - 0.2).max() < 0.03, label
    assert not np.array_equal(folds, fold_numbers(targets, 5, 1, groups))


def test_combinations_of_labels_keep_their_shares() -> None:
    targets = np.random.default_rng(2).integers(0, 2, (400, 2)).astype(np.uint8)
    folds = fold_numbers(targets, 4, 0)
    for label in range(2):
        positive = np.bincount(folds, weights=targets[:, label])
        assert positive.max() - positive.min() <= 2


def test_more_folds_than_images_or_groups() -> None:
    with pytest.raises(UserError, match="--folds 4 is more than the 3 images"):
        fold_numbers(np.zeros(3, np.int32), 4, 0)
    with pytest.raises(UserError, match="--folds 3 is more than the 2 groups"):
        fold_numbers(np.zeros(9, np.int32), 3, 0, np.arange(9) % 2)
