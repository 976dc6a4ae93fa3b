"""Runs on a CPU that take this project's kernels."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from effnet.kernels import cpu_depthwise
from effnet.kernels.accelerate import accelerate
from effnet.kernels.cpu_convolution import DenseConv2d, DepthwiseConv2d
from effnet.kernels.workload import Workload
from effnet.models import build_model
from effnet.models.layers import Conv2d

WORKLOAD = Workload(batch_size=4, image_size=32, dtype=None, compiled=False)


@pytest.mark.skipif(not cpu_depthwise.is_available(), reason="needs a C++ compiler")
@pytest.mark.parametrize(
    ("changes", "mode", "expected"),
    [
        ({}, "auto", True),
        ({"batch_statistics": False}, "auto", True),
        ({}, "torch", False),
        ({"dtype": torch.bfloat16}, "auto", False),
        ({"channels_last": False}, "auto", False),
        ({"training": False}, "auto", False),
    ],
)
def test_convolutions_in_fp32_and_channels_last(changes: dict[str, Any], mode: Any, expected: bool) -> None:
    model = accelerate(build_model("efficientnet-lite0"), replace(WORKLOAD, **changes), mode)
    convolutions = [module for module in model.modules() if isinstance(module, Conv2d)]
    kinds = {(module.groups > 1, type(module)) for module in convolutions}
    replaced = {(True, DepthwiseConv2d), (False, DenseConv2d)}
    assert kinds == (replaced if expected else {(True, Conv2d), (False, Conv2d)})
