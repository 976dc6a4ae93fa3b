from itertools import pairwise

import numpy as np
import pytest

from effnet.data.position import TrainOrder, ValOrder
from effnet.runtime.errors import UserError


def test_an_epoch_is_a_permutation_without_its_incomplete_end() -> None:
    order = TrainOrder(103, 10, seed=1, rank=0, world_size=1)
    batches = list(order.batches(0, 0))
    assert len(batches) == len(order) == 10
    seen = np.concatenate(batches)
    assert len(np.unique(seen)) == 100
    assert set(seen) < set(range(103))


def test_epochs_and_seeds_differ() -> None:
    def first(seed: int, epoch: int) -> list[int]:
        return next(TrainOrder(100, 50, seed, 0, 1).batches(epoch, 0)).tolist()

    orders = [first(0, 0), first(0, 1), first(1, 0), first(1, 1)]
    assert all(a != b for a, b in pairwise(orders))
    assert first(1, 1) == orders[3]


def test_a_step_sees_the_same_images_however_many_processes_share_it() -> None:
    alone = TrainOrder(50, 12, seed=4, rank=0, world_size=1)
    shared = [TrainOrder(50, 4, seed=4, rank=rank, world_size=3) for rank in range(3)]
    steps = zip(*(order.batches(2, 1) for order in shared), strict=True)
    for whole, parts in zip(alone.batches(2, 1), steps, strict=True):
        np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_starting_inside_an_epoch() -> None:
    order = TrainOrder(50, 8, seed=4, rank=0, world_size=1)
    np.testing.assert_array_equal(list(order.batches(1, 0))[2:], list(order.batches(1, 2)))
    assert not list(order.batches(1, len(order)))


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_validation_counts_every_image_once(world_size: int) -> None:
    orders = [ValOrder(7, 2, rank, world_size) for rank in range(world_size)]
    batches = [list(order.batches(0, 0)) for order in orders]
    assert [len(b) for b in batches] == [len(order) for order in orders]
    seen = [int(i) for process in batches for batch in process for i in batch]
    assert sorted(seen) == list(range(7))


def test_too_few_images_for_a_batch() -> None:
    with pytest.raises(UserError, match=r"--batch-size 8 in each of 2 processes .* at most 7"):
        TrainOrder(15, 8, seed=0, rank=0, world_size=2)
