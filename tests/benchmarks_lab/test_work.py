"""Counted bytes and operations against other counters and against sums by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.work import count_work, stage_names
from effnet.models import build_model, model_config
from effnet.models.layers import Conv2d
from effnet.models.profile import layer_sizes, profile


@pytest.mark.parametrize(
    "name", ["efficientnet-b0", "efficientnet-lite0", "efficientnet-widese-b0", "efficientnet-v2-b0"]
)
def test_operations_are_those_that_pytorch_counts(name: str) -> None:
    config = model_config(name, image_size=64)
    work = {training: count_work(config, 2, 4, training) for training in (False, True)}
    model = build_model(name, image_size=64, dropout=0.0)
    x = torch.randn(2, 3, 64, 64)
    with FlopCounterMode(display=False) as inference, torch.no_grad():
        model.eval()(x)
    with FlopCounterMode(display=False) as training:
        model.train()(x).sum().backward()
    assert sum(done.operations for done in work[False].values()) == inference.get_total_flops()
    # The counter takes a depthwise convolution's weight gradient for a dense one's, with C times the products.
    too_many = 0
    for layer, size in layer_sizes(config).items():
        conv = model.get_submodule(layer)
        if isinstance(conv, Conv2d) and conv.groups > 1:
            too_many += 2 * 2 * size.macs * (conv.groups - 1)
    assert sum(done.operations for done in work[True].values()) == training.get_total_flops() - too_many
    for stage in stage_names(config)[:-1]:
        counted = sum(inference.get_flop_counts()[f"EfficientNet.{stage}"].values())
        assert work[False][stage].operations == counted, stage


def test_bytes_of_a_stage_by_hand() -> None:
    """B0's second stage at 224 px: 16 channels of 112 px to 24 of 56, first with stride 2, then with a shortcut."""
    config = model_config("efficientnet-b0")
    pixels, small = 112 * 112, 56 * 56
    inference = (
        # expansion reads 16, writes 96; depthwise reads 96, writes 96 small; projection reads 96, writes 24
        16 * pixels + 2 * 96 * pixels + 2 * 96 * small + 24 * small
        # the same with 144; the shortcut reads its 24 once more
        + 24 * small + 2 * 144 * small + 2 * 144 * small + 24 * small + 24 * small
    )  # fmt: skip
    weights = (16 * 96 + 96 * 9 + (96 * 4 + 4) + (4 * 96 + 96) + 96 * 24) + (
        24 * 144 + 144 * 9 + (144 * 6 + 6) + (6 * 144 + 144) + 144 * 24
    )
    work = count_work(config, 8, 2, training=False)["layers.1"]
    assert work.moved == 8 * inference * 2 + weights * 4

    forward = (
        # as above; squeezing reads 96 again, for it waits for BatchNorm's statistics
        16 * pixels + 2 * 96 * pixels + 3 * 96 * small + 24 * small
        # the shortcut reads projection and input, and writes the sum
        + 24 * small + 2 * 144 * small + 3 * 144 * small + 24 * small + 3 * 24 * small
    )  # fmt: skip
    backward = (
        # projected: value and gradient for BatchNorm, and again for the projection; then what PASSES lists
        4 * 24 * small + 6 * 96 * small + 4 * 96 * pixels + 2 * 16 * pixels
        + 4 * 24 * small + 6 * 144 * small + 4 * 144 * small + 2 * 24 * small + 24 * small
    )  # fmt: skip
    work = count_work(config, 8, 2, training=True)["layers.1"]
    assert work.moved == 8 * (forward + backward) * 2 + weights * 4 * 3


def test_no_convolution_is_forgotten() -> None:
    # Every tensor between convolutions is written and read, so at least twice what the layers give is moved.
    for name in ("efficientnet-b0", "efficientnet-lite4", "efficientnet-v2-s"):
        config = model_config(name, image_size=96)
        moved = {
            training: sum(work.moved for work in count_work(config, 1000, 2, training).values()) / 1000
            for training in (False, True)
        }
        activations = profile(name, 96).activations
        assert 1.5 * activations * 2 < moved[False] < 2.5 * activations * 2
        assert 2.5 * moved[False] < moved[True] < 5 * moved[False]
