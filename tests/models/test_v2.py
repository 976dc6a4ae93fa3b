"""EfficientNetV2 against torchvision's and timm's models: logits, parameters, operations."""

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from effnet.models import build_model, model_config
from effnet.models.layers import FusedMBConv, MBConv
from effnet.models.profile import profile
from effnet.weights import LAYOUTS
from tests.weights.random_weights import images, randomise, relative_difference, settle

TOLERANCE = 1e-4
MEMBERS = ("s", "m", "l", "b0", "b1", "b2", "b3")
BASELINES = [
    *(("torchvision", f"efficientnet_v2_{member}", member) for member in ("s", "m", "l")),
    *(("timm", f"tf_efficientnetv2_{member}", member) for member in MEMBERS),
]


def baseline(publisher: str, name: str) -> nn.Module:
    """A publisher's model with random weights."""
    model: nn.Module = timm.create_model(name) if publisher == "timm" else torchvision.models.get_model(name)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("publisher", "their_name", "member"), BASELINES)
def test_same_logits_both_ways(publisher: str, their_name: str, member: str) -> None:
    theirs = baseline(publisher, their_name)
    randomise(theirs)
    settle(theirs, images(128, 128))
    ours = build_model(f"efficientnet-v2-{member}", padding="same" if publisher == "timm" else "symmetric")
    layout = LAYOUTS[publisher]
    ours.load_state_dict(layout.to_ours(theirs.state_dict(), ours.config))
    # An odd and an even side: padding differs by them.
    for x in (images(128, 128), images(67, 96)):
        assert relative_difference(ours, theirs, x) <= TOLERANCE

    randomise(ours)
    settle(ours, images(96, 96))
    theirs.load_state_dict(layout.from_ours(ours.state_dict(), ours.config), strict=True)
    assert relative_difference(ours, theirs, images(67, 96)) <= TOLERANCE


@pytest.mark.parametrize(("publisher", "their_name", "member"), BASELINES)
def test_parameters_and_operations_are_the_baselines(publisher: str, their_name: str, member: str) -> None:
    counted = profile(f"efficientnet-v2-{member}", image_size=128)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        theirs = baseline(publisher, their_name).eval()
        theirs(torch.empty(1, 3, 128, 128))
    assert counted.parameters == sum(parameter.numel() for parameter in theirs.parameters())
    assert counted.macs * 2 == counter.get_total_flops()


@pytest.mark.parametrize("member", ["s", "m", "l"])
def test_published_work(member: str) -> None:
    weights = torchvision.models.get_model_weights(f"efficientnet_v2_{member}").IMAGENET1K_V1
    counted = profile(f"efficientnet-v2-{member}", weights.transforms().crop_size[0])
    assert counted.parameters == weights.meta["num_params"]
    assert counted.macs / 1e9 == pytest.approx(weights.meta["_ops"], abs=0.02)


@pytest.mark.parametrize("member", MEMBERS)
def test_settings(member: str) -> None:
    config = model_config(f"efficientnet-v2-{member}")
    stated = timm.get_pretrained_cfg(f"tf_efficientnetv2_{member}.in1k")
    assert stated is not None
    assert config.image_size == stated.input_size[1]
    assert config.is_large == (member in ("s", "m", "l"))
    assert (config.survival_prob, config.bn_momentum, config.bn_epsilon) == (0.8, 0.1, 1e-3)
    if member in ("s", "m", "l"):
        with torch.device("meta"):
            theirs = torchvision.models.get_model(f"efficientnet_v2_{member}")
        assert config.dropout == theirs.classifier[0].p
    twin = model_config(config.twin)
    assert (twin.quantized, twin.twin, twin.stages()) == (True, config.name, config.stages())


@pytest.mark.parametrize(("member", "count"), [("s", 6), ("m", 7), ("b0", 6)])
def test_features_are_the_stages_outputs(member: str, count: int) -> None:
    with torch.device("meta"), torch.no_grad():
        model = build_model(f"efficientnet-v2-{member}").eval()
        features = model.extract_features(torch.empty(2, 3, 75, 64))
    assert list(features) == [*(f"layer{number}" for number in range(1, count + 1)), "features"]
    sides = [(38, 32), (19, 16), (10, 8), (5, 4), (5, 4), (3, 2), (3, 2)][:count]
    assert [tuple(feature.shape[2:]) for feature in features.values()] == [*sides, (3, 2)]
    assert [feature.shape[1] for feature in features.values()] == [
        *(stage.out_channels for stage in model.config.stages()),
        1280,
    ]


def test_a_fused_block_by_hand() -> None:
    """The block from PyTorch's own operators."""
    torch.manual_seed(0)
    config = model_config("efficientnet-v2-b0")
    stage = config.stages()[1]
    assert (stage.kind, config.stages()[3].kind) == ("fused", "mbconv")
    first, second = (FusedMBConv(config, stage, is_first, 1.0).eval() for is_first in (True, False))
    assert not isinstance(first, MBConv)
    x = torch.randn(2, stage.in_channels, 9, 8)
    with torch.no_grad():
        y = by_hand(first, x, stride=2)
        torch.testing.assert_close(first(x), y)
        torch.testing.assert_close(second(y), y + by_hand(second, y, stride=1))
    assert (first.has_shortcut, second.has_shortcut) == (False, True)


def by_hand(block: FusedMBConv, x: torch.Tensor, stride: int) -> torch.Tensor:
    """The branch of a block, whose BatchNorm is the identity but for epsilon."""
    assert block.expand is not None
    scale = (1 + 1e-3) ** -0.5
    expanded = nn.functional.conv2d(x, block.expand.conv.weight, stride=stride, padding=1) * scale
    return nn.functional.conv2d(nn.functional.silu(expanded), block.proj.conv.weight) * scale


def test_gradients_reach_every_parameter() -> None:
    model = build_model("efficientnet-v2-b0", num_classes=3)
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
