"""Which of a run's convolutions take this project's CPU kernel."""

import torch

from effnet.models.efficientnet import EfficientNet
from effnet.models.kernels import cpu_depthwise
from effnet.models.layers import Conv2d
from effnet.recipe import ComputeSettings


def set_cpu_kernels(model: EfficientNet, compute: ComputeSettings, device: torch.device) -> bool:
    """Let depthwise convolutions train with `effnet.models.kernels.cpu_depthwise` where that suits the run.

    Returns:
        whether it does.
    """
    suits = device.type == "cpu" and compute.precision == "fp32" and compute.memory_format == "nhwc"
    if not suits or not cpu_depthwise.is_available():
        return False
    for module in model.modules():
        if isinstance(module, Conv2d) and module.groups > 1:
            module.cpu_kernel = True
    return True
