"""Metadata survives its way through files, and nonsense in it is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torchvision

from effnet.runtime.errors import UserError
from effnet.weights import IMAGENET, WeightsMetadata, class_list, list_weights

OWN = WeightsMetadata(
    model="efficientnet-b0",
    preprocessing={
        "image_size": 64,
        "resize": 73,
        "interpolation": "bilinear",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.1, 0.2, 0.3),
    },
    classes=("cat", "dog"),
)


@pytest.mark.parametrize("metadata", [OWN, *list_weights()], ids=lambda metadata: metadata.tag)
def test_through_json_and_back(metadata: WeightsMetadata) -> None:
    assert WeightsMetadata.from_dict(json.loads(json.dumps(metadata.to_dict()))) == metadata


def test_fields_of_a_later_version_are_passed_over() -> None:
    assert WeightsMetadata.from_dict({**OWN.to_dict(), "invented_later": 1}) == OWN


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"preprocessing": None}, "preprocessing"),
        ({"preprocessing": {"image_size": 64}}, "preprocessing"),
        ({"preprocessing": {**OWN.preprocessing, "image_size": "64"}}, "image_size"),
        ({"preprocessing": {**OWN.preprocessing, "resize": 0}}, "resize"),
        ({"preprocessing": {**OWN.preprocessing, "interpolation": "lanczos"}}, "interpolation"),
        ({"preprocessing": {**OWN.preprocessing, "mean": 0.5}}, "mean"),
        ({"preprocessing": {**OWN.preprocessing, "std": [0.1, 0.2, 0.0]}}, "std"),
        ({"bn_epsilon": 0}, "bn_epsilon"),
        ({"padding": "valid"}, "padding"),
        ({"class_list": "../../etc/passwd"}, "class_list"),
        ({"classes": [1, 2]}, "classes"),
        ({"sha256": "xyz"}, "sha256"),
        ({"model": None}, "model"),
    ],
)
def test_values_that_can_not_be_used(change: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        WeightsMetadata.from_dict({**OWN.to_dict(), **change})


def test_classes() -> None:
    assert OWN.class_names() == OWN.class_folders() == ("cat", "dog")
    imagenet = replace(OWN, class_list=IMAGENET, classes=())
    assert imagenet.class_names()[:2] == ("tench", "goldfish")
    assert imagenet.class_folders()[:2] == ("n01440764", "n01443537")
    assert imagenet.without_classes().class_names() == ()


def test_imagenet_names_are_torchvisions() -> None:
    names = torchvision.models.get_weight("EfficientNet_B0_Weights.IMAGENET1K_V1").meta["categories"]
    assert list(class_list(IMAGENET).names) == names


def test_imagenet_folders_are_the_data_sets(shared_dir: Path) -> None:
    listed = (shared_dir / "data/imagenet-sample/wnids.txt").read_text().split()
    assert list(class_list(IMAGENET).wnids) == listed


def test_no_such_list() -> None:
    with pytest.raises(UserError, match="imagenet-1k"):
        class_list("imagenet-22k")
