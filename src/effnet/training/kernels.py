"""Which parts of a run's model take this project's own kernels."""

import torch

from effnet.models.cache import cache_dir
from effnet.models.efficientnet import EfficientNet
from effnet.models.kernels import cpu_depthwise
from effnet.models.kernels.choose import Workload, choose_kernels
from effnet.models.layers import Conv2d
from effnet.recipe import ComputeSettings, Recipe
from effnet.training.precision import AUTOCAST_DTYPES, resolve_precision

CACHE_FILE = "kernels/choices.json"


def set_kernels(model: EfficientNet, recipe: Recipe, device: torch.device) -> None:
    """Let `model` train with what `--kernels` asks for: `effnet.models.kernels.choose`, on CPUs `.cpu_depthwise`.

    Args:
        model: on its device.
        recipe: resolved settings.
        device: the run's.

    Raises:
        ModelError: kernels that can't run here.
    """
    compute, size = recipe.compute, recipe.model.image_size
    if compute.kernels == "auto" and _suit_cpu(compute, device):
        _set_cpu_kernels(model)
    assert size is not None, "the recipe is to be resolved"
    # The kernels are for channels-last tensors, and a frozen backbone runs no BatchNorm on its batch.
    suits = compute.memory_format == "nhwc" and recipe.model.freeze == "none"
    if compute.kernels == "auto" and not suits:
        return
    workload = Workload(
        recipe.optimizer.batch_size,
        size,
        AUTOCAST_DTYPES.get(resolve_precision(compute.precision, device)),
        compute.compile,
    )
    choose_kernels(model, workload, compute.kernels, cache_dir() / CACHE_FILE)


def _suit_cpu(compute: ComputeSettings, device: torch.device) -> bool:
    is_fp32 = resolve_precision(compute.precision, device) == "fp32"
    suits = device.type == "cpu" and is_fp32 and compute.memory_format == "nhwc"
    return suits and cpu_depthwise.is_available()


def _set_cpu_kernels(model: EfficientNet) -> None:
    """Let depthwise convolutions train with `effnet.models.kernels.cpu_depthwise`."""
    for module in model.modules():
        if isinstance(module, Conv2d) and module.groups > 1:
            module.cpu_kernel = True
