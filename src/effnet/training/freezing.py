"""Fine-tuning part by part: which parts of a model train in an epoch, and in which mode its layers are.

A frozen part keeps its weights, its BatchNorms their statistics, and none of its blocks is dropped.
"""

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from effnet.models.efficientnet import EfficientNet
from effnet.recipe import ModelSettings, ResolvedRecipe
from effnet.runtime.errors import UserError


def parts_of(model: EfficientNet) -> list[nn.Module]:
    """Return classifier, last stage with the head, the other stages, and stem: what fine-tuning changes most first."""
    last = nn.ModuleList([model.features, model.layers[-1]])
    return [model.classifier, last, *reversed(model.layers[:-1]), model.stem]


def held_parts(model: EfficientNet, settings: ModelSettings) -> list[nn.Module]:
    """Return the parts that ``--freeze`` names, in the order in which ``--unfreeze-every`` frees them.

    Raises:
        UserError: the model has fewer stages.
    """
    if settings.freeze == "none":
        return []
    if settings.freeze == "backbone":
        return parts_of(model)[1:]
    stages = 0 if settings.freeze == "stem" else int(settings.freeze)
    if stages > len(model.layers):
        raise UserError(f"--freeze {stages}: {settings.arch} has {len(model.layers)} stages")
    return [*reversed(model.layers[:stages]), model.stem]


def frozen_parts(model: EfficientNet, settings: ModelSettings, epoch: int) -> list[nn.Module]:
    """Return the parts that are frozen in an epoch, counted from 0."""
    held = held_parts(model, settings)
    return held if settings.unfreeze_every is None else held[epoch // settings.unfreeze_every :]


def freeze(model: EfficientNet, frozen: Sequence[nn.Module]) -> bool:
    """Let all parameters of a model require gradients but those of the frozen parts.

    Returns:
        True if that changes any.
    """
    held = {parameter for part in frozen for parameter in part.parameters()}
    changed = False
    for parameter in model.parameters():
        trains = parameter not in held
        changed |= parameter.requires_grad != trains
        parameter.requires_grad_(trains)
    return changed


def set_modes(model: EfficientNet, recipe: ResolvedRecipe, epoch: int) -> None:
    """Bring the layers of a model into their modes for training in an epoch, counted from 0."""
    model.train()
    for part in frozen_parts(model, recipe.model, epoch):
        part.eval()
    last_epochs = epoch >= recipe.schedule.epochs - recipe.quantization.freeze_bn
    if recipe.model.bn_statistics == "weights" or last_epochs:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
