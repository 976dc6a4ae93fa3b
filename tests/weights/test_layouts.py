"""Every layout against its publisher's own implementation, in both directions."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from effnet import create_model
from effnet.models import build_model
from effnet.models.config import MODEL_CONFIGS
from effnet.runtime.errors import UserError
from effnet.weights import LAYOUTS, detect_layout, list_weights, save_weights

from .random_weights import images, randomise, relative_difference

TOLERANCE = 1e-4


def torchvision_model(name: str) -> nn.Module:
    return torchvision.models.get_model(name)


def timm_model(name: str) -> nn.Module:
    return timm.create_model(name)


def google_model(name: str) -> nn.Module:
    library = pytest.importorskip("efficientnet_lite_pytorch", reason="its own implementation is absent")
    return library.EfficientNet.from_name(name)


# layout, builder, their name, our name, name of the published file that settles epsilon and padding
IMPLEMENTATIONS = [
    ("torchvision", torchvision_model, "efficientnet_b0", "b0", "efficientnet_b0_rwightman-7f5810bc.pth"),
    ("torchvision", torchvision_model, "efficientnet_b1", "b1", "efficientnet_b1-c27df63c.pth"),
    ("timm", timm_model, "efficientnet_b0", "b0", "efficientnet_b0.ra_in1k.safetensors"),
    ("timm", timm_model, "efficientnet_b1", "b1", "efficientnet_b1.ft_in1k.safetensors"),
    ("timm", timm_model, "tf_efficientnet_b0", "b0", "tf_efficientnet_b0.in1k.safetensors"),
    ("timm", timm_model, "tf_efficientnet_lite0", "lite0", "tf_efficientnet_lite0.in1k.safetensors"),
    ("timm", timm_model, "efficientnet_lite0", "lite0", "efficientnet_lite0.ra_in1k.safetensors"),
    ("timm", timm_model, "tf_efficientnetv2_b0", "v2-b0", "tf_efficientnetv2_b0.in1k.safetensors"),
    ("google", google_model, "efficientnet-lite0", "lite0", "efficientnet-lite0-57934424.pth"),
    ("google", google_model, "efficientnet-lite2", "lite2", "efficientnet-lite2-9656183e.pth"),
]


@pytest.mark.parametrize(("layout", "build", "their_name", "member", "file_name"), IMPLEMENTATIONS)
def test_same_logits_both_ways(
    layout: str,
    build: Callable[[str], nn.Module],
    their_name: str,
    member: str,
    file_name: str,
    tmp_path: Path,
) -> None:
    theirs = build(their_name)
    randomise(theirs)
    save_weights(tmp_path / file_name, theirs.state_dict())
    ours = create_model(f"efficientnet-{member}", weights=tmp_path / file_name)
    # An odd and an even side: padding differs by them. Google's is fixed for the model's own size.
    size = ours.config.image_size
    x = images(size, size) if layout == "google" else images(67, 96)
    assert relative_difference(ours, theirs, x) <= TOLERANCE

    randomise(ours)
    theirs.load_state_dict(LAYOUTS[layout].from_ours(ours.state_dict(), ours.config), strict=True)
    assert relative_difference(ours, theirs, x) <= TOLERANCE


@pytest.mark.parametrize("member", [f"b{size}" for size in range(8)])
def test_torchvision_s_whole_family_has_the_same_logits(member: str) -> None:
    theirs = torchvision_model(f"efficientnet_{member}")
    randomise(theirs)
    epsilon = next(module.eps for module in theirs.modules() if isinstance(module, nn.BatchNorm2d))
    ours = build_model(f"efficientnet-{member}", bn_epsilon=epsilon)
    ours.load_state_dict(LAYOUTS["torchvision"].to_ours(theirs.state_dict(), ours.config))
    assert relative_difference(ours, theirs, images(67, 96)) <= TOLERANCE


def published_builds() -> list[tuple[str, str, str]]:
    """(publisher, their name, our name) of every published model whose builder is at hand, once."""
    builds = {
        (row.publisher, row.name.partition(".")[0], row.model)
        for row in list_weights()
        if row.publisher in ("torchvision", "timm")
    }
    lite = {("google", f"efficientnet-lite{n}", f"efficientnet-lite{n}") for n in range(5)}
    return sorted(builds | lite)


@pytest.mark.parametrize(("publisher", "their_name", "our_name"), published_builds())
def test_keys_and_shapes_of_every_published_model(publisher: str, their_name: str, our_name: str) -> None:
    build = {"torchvision": torchvision_model, "timm": timm_model, "google": google_model}[publisher]
    with torch.device("meta"):
        theirs, ours = build(their_name).state_dict(), build_model(our_name).state_dict()
    config = MODEL_CONFIGS[our_name]
    layout = detect_layout(theirs)
    assert layout.name == publisher
    assert shapes(layout.to_ours(theirs, config)) == shapes(ours)
    assert shapes(layout.from_ours(ours, config)) == shapes(theirs)


def shapes(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {key: tensor.shape for key, tensor in state_dict.items()}


@pytest.mark.parametrize(
    "name", ["efficientnet-b0", "efficientnet-widese-b4", "efficientnet-lite2", "efficientnet-v2-m"]
)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_there_and_back(name: str, layout: object) -> None:
    assert isinstance(layout, type(LAYOUTS["ngc"]))
    with torch.device("meta"):
        ours = build_model(name).state_dict()
    there = layout.from_ours(ours, MODEL_CONFIGS[name])
    assert detect_layout(there) is layout
    assert shapes(layout.to_ours(there, MODEL_CONFIGS[name])) == shapes(ours)


def test_an_unknown_layout_is_named() -> None:
    with pytest.raises(UserError, match=r"known layout .*keys: conv1\.weight, bn1\.weight"):
        detect_layout(["conv1.weight", "bn1.weight"])
