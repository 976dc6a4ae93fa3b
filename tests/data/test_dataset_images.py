"""Items of a PyTorch data set."""

import pickle
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset

from effnet.data.dataset_images import dataset_images
from effnet.data.decode import BadImageError
from effnet.runtime.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)


class Items(Dataset[Any]):
    """Items that are given, and how often each was asked for."""

    def __init__(self, items: Sequence[Any], **attributes: Any) -> None:
        self.items, self.asked = items, 0
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.asked += 1
        item = self.items[index]
        return item() if callable(item) else item


def pairs(count: int = 4, **attributes: Any) -> Items:
    return Items([(PIXELS[n % 4], n % 3) for n in range(count)], **attributes)


def test_every_form_of_an_image_has_its_pixels() -> None:
    tensor = torch.from_numpy(PIXELS[1]).permute(2, 0, 1)
    forms = [Image.fromarray(PIXELS[1]), PIXELS[1], tensor, tensor / 255]
    images = dataset_images(Items([(form, 0) for form in forms]))
    for opened in images.read(range(4)):
        assert np.array_equal(opened().decode(), PIXELS[1])


def test_targets_without_reading_each_item() -> None:
    many = pairs(300, targets=[n % 3 for n in range(300)], classes=("a", "b", "c"))
    images = dataset_images(many)
    assert many.asked < 20
    assert images.classes == ["a", "b", "c"]
    assert images.targets.tolist() == [n % 3 for n in range(300)]
    part: Subset[Any] = Subset(ConcatDataset([many, many]), [5, 301, 3])
    assert dataset_images(part).targets.tolist() == [2, 1, 0]
    assert dataset_images(part).classes == ["a", "b", "c"]


def test_an_attribute_that_does_not_agree_is_not_believed() -> None:
    wrong = pairs(9, targets=torch.zeros(9, dtype=torch.int64))
    images = dataset_images(wrong)
    assert images.targets.tolist() == [n % 3 for n in range(9)]
    assert images.classes == ["0", "1", "2"]


def test_several_labels() -> None:
    hot = [[1, 0, 1], [0.0, 0.0, 0.0], torch.tensor([True, False, False]), np.array([0, 1, 1], np.uint8)]
    images = dataset_images(Items([(PIXELS[0], each) for each in hot]))
    assert images.targets.dtype == np.uint8
    assert images.targets.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert images.classes == ["0", "1", "2"]


def noise() -> tuple[torch.Tensor, int]:
    drawn = [random.randrange(256), int(np.random.randint(256)), int(torch.randint(256, ()))]
    return torch.tensor(drawn, dtype=torch.uint8)[:, None, None], 0


def test_random_items_depend_on_seed_epoch_and_index_alone() -> None:
    def drawn(images: Any, index: int, epoch: int) -> list[int]:
        (opened,) = images.read([index], epoch)
        return list(opened().decode()[0, 0].tolist())

    images = dataset_images(Items([noise] * 5), seed=3)
    before = torch.get_rng_state(), random.getstate()
    seen = {(index, epoch): drawn(images, index, epoch) for index in range(5) for epoch in range(3)}
    assert len({tuple(value) for value in seen.values()}) == 15
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    torch.manual_seed(1)
    copied = pickle.loads(pickle.dumps(images.subset(np.array([4, 2]))))
    assert drawn(copied, 0, 1) == seen[4, 1]
    assert drawn(dataset_images(Items([noise] * 5), seed=4), 4, 1) != seen[4, 1]


def missing() -> Any:
    raise FileNotFoundError(2, "No such file", "x.jpg")


def test_a_broken_item_is_named() -> None:
    images = dataset_images(Items([(PIXELS[0], 0), missing, (PIXELS[0][..., :2], 0)], targets=[0, 0, 0]))
    opened = list(images.read(range(3)))
    with pytest.raises(BadImageError, match=r"Items: item 1: can't be read: .*x\.jpg"):
        opened[1]()
    with pytest.raises(BadImageError, match=r"Items: item 2: an array of shape"):
        opened[2]()


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(())


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Items([]), "no items"),
        (Endless(), "no length"),
        (Items([PIXELS[0]]), "not a pair"),
        (Items([(PIXELS[0], "cat")]), "its target is cat"),
        (Items([(PIXELS[0], -1)]), "its target is -1"),
        (Items([(PIXELS[0], [0, 2])]), "its target is"),
        (Items([(PIXELS[0], 0), (PIXELS[0], [0, 1])]), "differ in form"),
        (pairs(classes=["a"]), "1 classes, but a target is 2"),
        (Items([missing]), "targets"),
    ],
)
def test_what_is_refused(dataset: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataset_images(dataset)


def test_a_target_that_changes_is_an_error() -> None:
    items = [(PIXELS[0], 0), (PIXELS[0], 1)]
    images = dataset_images(Items(items))
    items[1] = (PIXELS[0], 0)
    with pytest.raises(UserError, match="item 1: its target is 0, and was 1"):
        next(iter(images.read([1])))()
