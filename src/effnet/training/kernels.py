"""Which of a run's blocks take this project's GPU kernels."""

import torch

from effnet.models.efficientnet import EfficientNet
from effnet.models.kernels.choose import Verdict, Workload, choose_kernels
from effnet.models.weights.download import cache_dir
from effnet.recipe import Recipe
from effnet.training.precision import AUTOCAST_DTYPES, resolve_precision

CACHE_FILE = "kernels.json"


def set_kernels(model: EfficientNet, recipe: Recipe, device: torch.device) -> dict[str, Verdict]:
    """Let each block of `model` run what `--kernels` asks for; see `effnet.models.kernels.choose`.

    Args:
        model: on its device.
        recipe: resolved settings.
        device: the run's.

    Raises:
        ModelError: kernels that can't run here.
    """
    compute, size = recipe.compute, recipe.model.image_size
    assert size is not None, "the recipe is to be resolved"
    # The kernels are for channels-last tensors, and a frozen backbone runs no BatchNorm on its batch.
    suits = compute.memory_format == "nhwc" and recipe.model.freeze == "none"
    if compute.kernels == "auto" and not suits:
        return {}
    workload = Workload(
        recipe.optimizer.batch_size,
        size,
        AUTOCAST_DTYPES.get(resolve_precision(compute.precision, device)),
        compute.compile,
    )
    return choose_kernels(model, workload, compute.kernels, cache_dir() / CACHE_FILE)
