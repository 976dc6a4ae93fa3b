"""The division into training and validation, beside scikit-learn's."""

import numpy as np
import pytest

from effnet.data.sources.splitting import divide

selection = pytest.importorskip("sklearn.model_selection")


@pytest.mark.parametrize("share", [0.1, 0.2, 1 / 3, 0.5])
@pytest.mark.parametrize("seed", [0, 7, 2**32 + 3])
def test_a_stratified_split_is_scikit_learn_s(share: float, seed: int) -> None:
    for sizes in ([50, 50, 50], [200, 90, 41, 17, 12], [11] * 13, [2, 900, 31]):
        targets = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        shuffled = np.random.default_rng(seed).permutation(targets)
        for of_case in (targets, shuffled):
            train, val = divide(of_case, share, seed)
            theirs = selection.StratifiedShuffleSplit(1, test_size=share, random_state=seed % 2**32)
            expected_train, expected_val = next(theirs.split(of_case, of_case))
            np.testing.assert_array_equal(train, np.sort(expected_train))
            np.testing.assert_array_equal(val, np.sort(expected_val))


def test_it_is_train_test_split_s_too() -> None:
    targets = np.repeat(np.arange(4), [40, 30, 20, 10])
    train, val = divide(targets, 0.2, 5)
    expected = selection.train_test_split(np.arange(100), test_size=0.2, stratify=targets, random_state=5)
    assert [sorted(part) for part in expected] == [train.tolist(), val.tolist()]


def test_several_labels_are_divided_as_shuffle_split_does() -> None:
    targets = np.random.default_rng(0).integers(0, 2, (103, 4)).astype(np.uint8)
    train, val = divide(targets, 0.2, 9)
    expected_train, expected_val = next(
        selection.ShuffleSplit(1, test_size=0.2, random_state=9).split(targets)
    )
    assert (train.tolist(), val.tolist()) == (sorted(expected_train), sorted(expected_val))


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_divided_as_group_shuffle_split_does(seed: int) -> None:
    groups = np.random.default_rng(seed).integers(0, 23, 300)
    targets = np.random.default_rng(seed).integers(0, 3, 300)
    train, val = divide(targets, 0.25, seed, groups)
    theirs = selection.GroupShuffleSplit(1, test_size=0.25, random_state=seed)
    expected_train, expected_val = next(theirs.split(targets, targets, groups))
    assert (train.tolist(), val.tolist()) == (sorted(expected_train), sorted(expected_val))
    assert not set(groups[train]) & set(groups[val])


def test_a_class_of_one_image_is_trained() -> None:
    targets = np.array([0] * 10 + [1] + [2] * 10)
    train, val = divide(targets, 0.2, 0)
    assert 10 in train
    assert sorted([*train, *val]) == list(range(21))
    assert {*targets[val]} == {0, 2}
    train, val = divide(np.array([0, 1, 2]), 0.5, 0)
    assert (train.tolist(), val.tolist()) == ([0, 1, 2], [])


def test_all_for_validation() -> None:
    train, val = divide(np.array([0, 1, 1]), 1.0, 0)
    assert (train.tolist(), val.tolist()) == ([], [0, 1, 2])
