"""Which parts of a run's model take this project's own kernels."""

import torch

from effnet.models.cache import cache_dir
from effnet.models.efficientnet import EfficientNet
from effnet.models.kernels.choose import Verdict, Workload, choose_kernels
from effnet.recipe import Recipe
from effnet.training.cpu_kernels import set_cpu_kernels
from effnet.training.precision import AUTOCAST_DTYPES, resolve_precision

CACHE_FILE = "kernels/choices.json"


def set_kernels(model: EfficientNet, recipe: Recipe, device: torch.device) -> dict[str, Verdict]:
    """Let `model` train with what `--kernels` asks for; see `effnet.models.kernels.choose`, and `.cpu` for CPUs.

    Args:
        model: on its device.
        recipe: resolved settings.
        device: the run's.

    Raises:
        ModelError: kernels that can't run here.
    """
    compute, size = recipe.compute, recipe.model.image_size
    if compute.kernels == "auto":
        set_cpu_kernels(model, compute, device)
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
