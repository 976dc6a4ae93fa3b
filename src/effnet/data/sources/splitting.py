"""Division of images into those for training and those for validation, by a seed.

The same images, share and seed give the same division as scikit-learn's `StratifiedShuffleSplit`, `ShuffleSplit` and
`GroupShuffleSplit`, which is tested; scikit-learn itself need not be installed.
"""

import math

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

_SEEDS = 2**32  # that NumPy's RandomState takes


def divide(
    targets: npt.NDArray[np.integer], share: float, seed: int, groups: Indices | None = None
) -> tuple[Indices, Indices]:
    """Divide images.

    Args:
        targets: (N,) classes, whose shares stay the same; (N, C) for images with several labels, which are divided at
            random.
        share: of validation, above 0; 1 for all.
        seed: of the division.
        groups: (N,) groups, which stay together; their number is divided at random, whatever the classes.

    Returns:
        Positions of the images for training and for validation, ascending.
    """
    random = np.random.RandomState(seed % _SEEDS)
    if share >= 1:
        return np.empty(0, np.int64), np.arange(len(targets))
    if groups is not None:
        _, number = np.unique(groups, return_inverse=True)
        in_val = _drawn(int(number.max()) + 1, share, random)[number]
    elif targets.ndim == 1:
        in_val = _stratified(targets, share, random)
    else:
        in_val = _drawn(len(targets), share, random)
    return np.flatnonzero(~in_val), np.flatnonzero(in_val)


def _drawn(count: int, share: float, random: np.random.RandomState) -> npt.NDArray[np.bool_]:
    """Draw a share, rounded up, of `count` things."""
    drawn = np.zeros(count, np.bool_)
    drawn[random.permutation(count)[: math.ceil(share * count)]] = True
    return drawn


def _stratified(
    targets: npt.NDArray[np.integer], share: float, random: np.random.RandomState
) -> npt.NDArray[np.bool_]:
    """Draw the same share of every class; a class of one image stays in training."""
    in_val = np.zeros(len(targets), np.bool_)
    _, of_class, sizes = np.unique(targets, return_inverse=True, return_counts=True)
    divided = np.flatnonzero(sizes[of_class] > 1)
    if len(divided) == 0:
        return in_val
    _, of_class, sizes = np.unique(targets[divided], return_inverse=True, return_counts=True)
    val_count = math.ceil(share * len(divided))
    train_sizes = _apportioned(sizes, len(divided) - val_count, random)
    val_sizes = _apportioned(sizes - train_sizes, val_count, random)
    members = np.split(divided[np.argsort(of_class, kind="stable")], np.cumsum(sizes)[:-1])
    for of_one, first, count in zip(members, train_sizes.tolist(), val_sizes.tolist(), strict=True):
        shuffled = of_one[random.permutation(len(of_one))]
        in_val[shuffled[first : first + count]] = True
    return in_val


def _apportioned(sizes: Indices, count: int, random: np.random.RandomState) -> Indices:
    """Return how many of `count` fall on each class in proportion to `sizes`: largest remainders first, ties drawn."""
    exact = sizes / sizes.sum() * count
    numbers = np.floor(exact)
    remainders = exact - numbers
    left = int(count - numbers.sum())
    for remainder in np.unique(remainders)[::-1]:
        if left <= 0:
            break
        tied = np.flatnonzero(remainders == remainder)
        chosen = random.choice(tied, size=min(len(tied), left), replace=False)
        numbers[chosen] += 1
        left -= len(chosen)
    return numbers.astype(np.int64)
