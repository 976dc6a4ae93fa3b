"""Division of images into folds for cross-validation, by a seed.

With classes and without groups the folds are those of scikit-learn's `StratifiedKFold` with ``shuffle=True`` and the
seed as its ``random_state``, which is tested; scikit-learn itself need not be installed.
"""

import numpy as np
import numpy.typing as npt

from effnet.runtime.errors import UserError

Folds = npt.NDArray[np.int64]
"""(N,) fold of each image, from 0"""

_SEEDS = 2**32  # that NumPy's RandomState takes


def fold_numbers(
    targets: npt.NDArray[np.integer], folds: int, seed: int, groups: npt.NDArray[np.int64] | None = None
) -> Folds:
    """Divide images into folds of nearly equal size, in each of which classes have the shares that they have in all.

    Args:
        targets: (N,) classes; (N, C) of 0 and 1 for several labels, of which each combination counts as a class.
        folds: their number.
        seed: of the division.
        groups: (N,) groups, which stay together.

    Raises:
        UserError: there are fewer images, or groups, than folds.
    """
    if targets.ndim == 1:
        classes = targets
    else:
        classes = np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1)
    number, what = (len(targets), "images") if groups is None else (len(np.unique(groups)), "groups")
    if number < folds:
        raise UserError(f"--folds {folds} is more than the {number} {what}")
    random = np.random.RandomState(seed % _SEEDS)
    return _dealt(classes, folds, random) if groups is None else _grouped(classes, groups, folds, random)


def _dealt(classes: npt.NDArray[np.integer], folds: int, random: np.random.RandomState) -> Folds:
    """Deal the images, sorted by class, to the folds in turn; which images of a class a fold gets is drawn."""
    _, first, code = np.unique(classes, return_index=True, return_inverse=True)
    by_appearance = np.argsort(first)
    sizes = np.bincount(code)[by_appearance]
    turns = np.arange(len(classes)) % folds  # fold of each image, sorted by class
    result = np.empty(len(classes), np.int64)
    for label, of_class in zip(by_appearance.tolist(), np.split(turns, np.cumsum(sizes)[:-1]), strict=True):
        numbers = np.sort(of_class)
        random.shuffle(numbers)
        result[code == label] = numbers
    return result


def _grouped(
    classes: npt.NDArray[np.integer],
    groups: npt.NDArray[np.int64],
    folds: int,
    random: np.random.RandomState,
) -> Folds:
    """Give each group, the largest first, to the fold that has the smallest shares of its classes so far."""
    _, code = np.unique(classes, return_inverse=True)
    _, group = np.unique(groups, return_inverse=True)
    counts = np.zeros((group.max() + 1, code.max() + 1), np.int64)
    np.add.at(counts, (group, code), 1)
    order = random.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    totals = counts.sum(0).astype(np.float64)
    given = np.zeros((folds, len(totals)))
    fold_of = np.empty(len(counts), np.int64)
    for number in order.tolist():
        present = np.flatnonzero(counts[number])
        shares = (counts[number][present] / totals[present] * (given[:, present] / totals[present])).sum(1)
        fold_of[number] = fold = np.lexsort((given.sum(1), shares))[0]
        given[fold] += counts[number]
    return fold_of[group]
