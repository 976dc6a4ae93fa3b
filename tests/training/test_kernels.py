"""Which runs on a CPU take this project's kernel for it."""

from typing import Any

import pytest
import torch

from effnet.kernels import cpu_depthwise
from effnet.models import build_model
from effnet.models.layers import Conv2d
from effnet.recipe import Recipe
from effnet.training.kernels import set_kernels


@pytest.mark.skipif(not cpu_depthwise.is_available(), reason="needs a C++ compiler")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"freeze": "backbone"}, True),
        ({"kernels": "torch"}, False),
        ({"precision": "bf16"}, False),
        ({"memory_format": "nchw"}, False),
    ],
)
def test_depthwise_convolutions_in_fp32_and_channels_last(changes: dict[str, Any], expected: bool) -> None:
    model = build_model("efficientnet-lite0")
    set_kernels(model, Recipe().replace({"image_size": 32, **changes}), torch.device("cpu"))
    convolutions = [module for module in model.modules() if isinstance(module, Conv2d)]
    assert {module.cpu_kernel for module in convolutions if module.groups > 1} == {expected}
    assert not any(module.cpu_kernel for module in convolutions if module.groups == 1)
