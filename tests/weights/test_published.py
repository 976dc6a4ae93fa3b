"""The table of published weights against what the publishers say themselves."""

import functools
import hashlib
import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from effnet.models import list_models
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata, find_weights, list_weights, published_tag, publishers_of
from effnet.weights.published import PUBLISHED, PublishedWeights, metadata_by_convention
from effnet.weights.sources import locate
from tests.commands import REPOSITORY


def rows(publisher: str) -> list[WeightsMetadata]:
    return [row for row in list_weights() if row.publisher == publisher]


def epsilons(model: nn.Module) -> set[float]:
    return {module.eps for module in model.modules() if isinstance(module, nn.BatchNorm2d)}


@pytest.mark.parametrize("row", rows("torchvision"), ids=lambda row: row.name)
def test_torchvision(row: WeightsMetadata) -> None:
    builder, name = row.name.split(".")
    weights = getattr(torchvision.models.get_model_weights(builder), name)
    assert row.source == weights.url
    assert row.source.endswith(f"-{row.sha256}.pth")
    transforms = weights.transforms()
    assert row.preprocessing == {
        "image_size": transforms.crop_size[0],
        "resize": transforms.resize_size[0],
        "interpolation": transforms.interpolation.value,
        "mean": tuple(transforms.mean),
        "std": tuple(transforms.std),
    }
    assert {"acc@1": row.top1, "acc@5": row.top5} == weights.meta["_metrics"]["ImageNet-1K"]
    with torch.device("meta"):
        assert epsilons(torchvision.models.get_model(builder)) == {row.bn_epsilon}


def test_torchvisions_default_comes_first() -> None:
    for member in range(8):
        builder = f"efficientnet_b{member}"
        first = find_weights(f"efficientnet-b{member}", "torchvision").metadata
        assert first.name == f"{builder}.{torchvision.models.get_model_weights(builder).DEFAULT.name}"


@functools.cache
def timm_model(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


@pytest.mark.parametrize("row", rows("timm"), ids=lambda row: row.name)
def test_timm(row: WeightsMetadata) -> None:
    stated = timm.get_pretrained_cfg(row.name)
    assert stated is not None
    size = (stated.test_input_size or stated.input_size)[1]
    assert row.preprocessing == {
        "image_size": size,
        "resize": int(size / (stated.test_crop_pct or stated.crop_pct)),
        "interpolation": stated.interpolation,
        "mean": stated.mean,
        "std": stated.std,
    }
    # Accuracies that were measured on squashed images are not those of cropped ones.
    assert stated.crop_mode == "center" or (row.top1, row.top5) == (None, None)
    assert stated.num_classes == len(row.class_names())
    assert row.source == f"https://huggingface.co/{stated.hf_hub_id}/resolve/main/model.safetensors"
    assert row.licence.lower() == stated.license
    theirs = timm_model(row.name.partition(".")[0])
    assert epsilons(theirs) == {row.bn_epsilon}
    assert ("Same" in type(theirs.conv_stem).__name__) == (row.padding == "same")


@pytest.mark.parametrize("row", [row for row in PUBLISHED if row.package], ids=lambda row: row.metadata.tag)
def test_packages(row: PublishedWeights) -> None:
    assert row.package is not None
    package = pytest.importorskip(row.package, reason=f"extra {row.extra}")
    (file,) = Path(package.__file__).parent.glob("models/*.pth")
    assert locate(row) == file
    assert file.name == row.metadata.file_name
    assert file.stat().st_size == row.metadata.size
    assert row.metadata.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    distribution = importlib.metadata.distribution(row.package.replace("_", "-"))
    assert row.metadata.source == distribution.metadata["Home-page"]
    assert row.metadata.licence == "Apache-2.0"
    assert "Licensed under the Apache License, Version 2.0" in (distribution.read_text("LICENSE") or "")
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras[row.extra] == [f"{row.package.replace('_', '-')}=={distribution.version}"]
    assert row.extra in extras["lite"][0]


@pytest.mark.parametrize("row", rows("google"), ids=lambda row: row.name)
def test_google(row: WeightsMetadata) -> None:
    library = pytest.importorskip("efficientnet_lite_pytorch", reason="its own implementation is absent")
    size = library.EfficientNet.get_image_size(row.model)
    assert row.preprocessing == {
        "image_size": size,
        "resize": size + 32,
        "interpolation": "bicubic",
        "mean": (127 / 255,) * 3,
        "std": (128 / 255,) * 3,
    }
    assert row.padding == "same"
    with torch.device("meta"):
        assert epsilons(library.EfficientNet.from_name(row.model)) == {row.bn_epsilon}


def test_what_a_publisher_s_models_have_in_common() -> None:
    lite3 = metadata_by_convention("google", "efficientnet-quant-lite3")
    assert lite3 is not None
    assert (lite3.preprocessing["image_size"], lite3.preprocessing["resize"]) == (280, 312)
    assert (lite3.preprocessing["mean"], lite3.padding) == ((127 / 255,) * 3, "same")
    b1 = metadata_by_convention("google", "efficientnet-b1")
    assert b1 is not None
    assert (b1.preprocessing["mean"], b1.padding) == ((0.485, 0.456, 0.406), "same")
    for row in rows("ngc"):
        common = metadata_by_convention("ngc", row.model)
        assert common is not None
        assert (common.preprocessing, common.padding) == (row.preprocessing, row.padding)
    assert metadata_by_convention("timm", "efficientnet-b0") is None


def test_ngc_is_the_documents_table(shared_dir: Path) -> None:
    document = "\n".join(path.read_text() for path in (shared_dir / "seed").glob("*.txt"))
    table = dict(re.findall(r"\| (efficientnet-\S+) \| (https://api\.ngc\.nvidia\.com/\S+) \|", document))
    assert len(table) == 6
    assert {row.model: row.source for row in rows("ngc")} == table
    assert all(row.source.endswith(f"/{row.file_name}") for row in rows("ngc"))
    for row in rows("ngc"):
        assert re.search(rf"\|\s+{row.model}\s+\|.*[ |]{row.top1}[ |]", document), row.model
        assert row.preprocessing["resize"] == row.preprocessing["image_size"] + 32


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.metadata.tag)
def test_every_row(row) -> None:  # type: ignore[no-untyped-def]
    metadata = row.metadata
    assert metadata.source.startswith("https://")
    assert metadata.licence
    assert metadata.preprocessing["resize"] >= metadata.preprocessing["image_size"]
    assert metadata.model in list_models() or metadata.model.startswith("efficientnet-quant-")
    assert find_weights(metadata.model, metadata.tag) is row


def test_tags_and_files_are_unique() -> None:
    assert len({row.tag for row in list_weights()}) == len(list_weights())
    assert len({row.file_name for row in list_weights()}) == len(list_weights())


def test_what_pretrained_takes() -> None:
    assert published_tag("efficientnet-b0") == "ngc/efficientnet_b0_pyt_amp"
    for size in range(3):
        assert published_tag(f"efficientnet-lite{size}") == f"google/efficientnet-lite{size}"
    assert published_tag("efficientnet-b1") == "torchvision/efficientnet_b1.IMAGENET1K_V2"
    assert published_tag("efficientnet-b0", "timm") == "timm/efficientnet_b0.ra_in1k"
    assert published_tag("efficientnet-v2-s") == "torchvision/efficientnet_v2_s.IMAGENET1K_V1"
    assert published_tag("efficientnet-v2-b0") == "timm/tf_efficientnetv2_b0.in1k"
    assert published_tag("efficientnet-quant-v2-b0") == "timm/tf_efficientnetv2_b0.in1k"
    assert publishers_of("efficientnet-b0") == ("ngc", "torchvision", "timm")
    assert publishers_of("efficientnet-widese-b1") == ()


def test_what_there_is_not() -> None:
    with pytest.raises(
        UserError, match=r"no weights 'google' of efficientnet-lite3 are known; there are timm/"
    ):
        find_weights("efficientnet-lite3", "google")
    with pytest.raises(UserError, match="no published weights of efficientnet-widese-b1"):
        find_weights("efficientnet-widese-b1")
