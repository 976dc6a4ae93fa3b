"""Progressive sizes: the side of an epoch's images, and that the loaders keep to it."""

import pytest
import torch

from effnet.data.sizes import Sizes
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from tests.data.batches import of
from tests.data.conftest import Opened
from tests.runs import resolved


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (Sizes(128, 224, 4), [128, 160, 192, 224]),
        (Sizes(32, 96, 7), [32, 32, 64, 64, 64, 96, 96]),  # from 32, 42.7, 53.3, 64, 74.7, 85.3, 96
        (
            Sizes(100, 260, 4),
            [100, 160, 192, 260],
        ),  # from 100, 153.3, 206.7, 260: only the ends are no multiples
        (Sizes(33, 40, 3), [33, 33, 40]),
        (Sizes(96, 224, 1), [224]),
        (Sizes(224, 224, 3), [224, 224, 224]),
    ],
)
def test_sides_grow_linearly_in_multiples_of_32(sizes: Sizes, expected: list[int]) -> None:
    assert [sizes.at(epoch) for epoch in range(sizes.epochs)] == expected
    assert sizes.at(sizes.epochs) == sizes.high
    assert sizes.all() == sorted(set(expected))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_an_epoch_have_its_side(opened: Opened, workers: int) -> None:
    settings = {"epochs": 3, "progressive_sizes": 32, "workers": workers, "size": 96}
    loader, expected = of(opened(**settings).train), of(opened(**settings, data_backend="pytorch").train)
    for side in (32, 64, 96):
        assert {batch.images.shape[2:] for batch in loader} == {(side, side)}
    # Within an epoch, as after a resume: the same images.
    expected.load_state_dict({"epoch": 1, "step": 2})
    loader.load_state_dict({"epoch": 1, "step": 0})
    whole = [batch.images for batch in loader]
    assert all(map(torch.equal, whole[2:], [batch.images for batch in expected]))
    assert {batch.images.shape[2:] for batch in of(opened(**settings).val)} == {(96, 96)}


@pytest.mark.parametrize("backend", ["synthetic", "dali-cpu"])
def test_other_backends_refuse_it(opened: Opened, backend: str) -> None:
    with pytest.raises(UserError, match=f"--progressive-sizes needs .*; {backend} has images of one size"):
        opened(data_backend=backend, progressive_sizes=32)


def test_it_starts_below_the_image_size() -> None:
    recipe = Recipe().replace({"image_size": 64, "progressive_sizes": 96})
    with pytest.raises(UserError, match="--progressive-sizes 96 is above --image-size 64"):
        resolved(recipe)
