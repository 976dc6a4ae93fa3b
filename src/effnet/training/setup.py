"""From a recipe to a model and what it needs of its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from effnet.data.preprocessing import Preprocessing
from effnet.errors import UserError
from effnet.models.efficientnet import EfficientNet
from effnet.models.weights import (
    IMAGENET,
    WeightsMetadata,
    class_list,
    create_model,
    published_tag,
    read_metadata,
)
from effnet.recipe import Recipe
from effnet.training.checkpoint import read_checkpoint

# The document validates at size + 32, which fits its sizes of 224 and more; smaller images keep 224's proportion.
RESIZE_MARGIN = 32
LARGEST_RESIZE = 256 / 224


@dataclass(frozen=True)
class Origin:
    """Where a run starts from.

    Attributes:
        weights: what `create_model` takes: a publisher's tag, a path, or None for fresh weights.
        checkpoint: content of the checkpoint to resume, which then holds the weights.
        metadata: what the weights or the checkpoint say of themselves.
    """

    weights: str | None
    checkpoint: Mapping[str, Any] | None
    metadata: WeightsMetadata | None

    @property
    def classes(self) -> Sequence[str] | None:
        """Class folders in the order of a resumed model's logits."""
        if self.checkpoint is None or self.metadata is None:
            return None
        return self.metadata.class_folders() or None


def find_origin(recipe: Recipe) -> Origin:
    """Read the checkpoint to resume, or find the weights to start from.

    Raises:
        UserError: contradicting flags.
        ModelError: a file that can't be used, or no published weights for the model.
    """
    sources = {
        "--resume": recipe.run.resume,
        "--pretrained-from-file": recipe.model.pretrained_from_file,
        "--pretrained": recipe.model.pretrained,
    }
    given = [flag for flag, value in sources.items() if value]
    if recipe.run.resume:
        checkpoint = read_checkpoint(recipe.run.resume)
        if (arch := checkpoint.get("arch", recipe.model.arch)) != recipe.model.arch:
            raise UserError(
                f"--resume {recipe.run.resume} is a checkpoint of {arch}, not of --arch {recipe.model.arch}"
            )
        metadata = checkpoint.get("metadata")
        return Origin(None, checkpoint, WeightsMetadata.from_dict(metadata) if metadata else None)
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} contradict each other; give one")
    if not given:
        return Origin(None, None, None)
    weights = recipe.model.pretrained_from_file or published_tag(
        recipe.model.arch, recipe.model.pretrained_source
    )
    return Origin(weights, None, read_metadata(weights))


def with_origin(recipe: Recipe, origin: Origin) -> Recipe:
    """`recipe` with the image size, BatchNorm epsilon and interpolation of the weights where it leaves them open."""
    if origin.metadata is None:
        return recipe
    preprocessing = Preprocessing.from_dict(origin.metadata.preprocessing)
    size = recipe.model.image_size or preprocessing.image_size
    return recipe.replace(
        {
            "image_size": size,
            "bn_epsilon": recipe.model.bn_epsilon or origin.metadata.bn_epsilon,
            "interpolation": recipe.data.interpolation or preprocessing.interpolation,
            "resize": recipe.data.resize or round(size * preprocessing.resize / preprocessing.image_size),
        }
    )


def preprocessing_of(recipe: Recipe, origin: Origin) -> Preprocessing:
    """What images go through: the recipe's sizes, and the normalisation of the weights or ImageNet's."""
    size = recipe.model.image_size
    assert size is not None, "the recipe is to be resolved"
    resize = recipe.data.resize or min(size + RESIZE_MARGIN, round(size * LARGEST_RESIZE))
    base = (
        Preprocessing.from_dict(origin.metadata.preprocessing)
        if origin.metadata
        else Preprocessing(size, resize)
    )
    return replace(
        base, image_size=size, resize=resize, interpolation=recipe.data.interpolation or base.interpolation
    )


def build_model(recipe: Recipe, origin: Origin, device: torch.device) -> EfficientNet:
    """The model of a resolved recipe on its device, in its memory format, with the origin's weights.

    Raises:
        ModelError: weights that don't fit.
    """
    settings = recipe.model
    assert settings.num_classes is not None, "the recipe is to be resolved"
    padding = origin.metadata.padding if origin.metadata else None
    model = create_model(
        settings.arch,
        weights=origin.weights,
        num_classes=settings.num_classes,
        image_size=settings.image_size,
        dropout=settings.dropout,
        survival_prob=settings.survival_prob,
        bn_momentum=settings.bn_momentum,
        bn_epsilon=settings.bn_epsilon,
        conv_init=settings.conv_init,
        padding=padding,
    )
    if settings.freeze == "backbone":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("classifier."))
    layout = torch.channels_last if recipe.compute.memory_format == "nhwc" else torch.contiguous_format
    return model.to(device=device, memory_format=layout)  # type: ignore[call-overload]  # PyTorch's stub lacks both


def metadata_of(model: EfficientNet, preprocessing: Preprocessing, classes: Sequence[str]) -> WeightsMetadata:
    """What a checkpoint or exported model says of itself, so that nobody has to repeat it to use it.

    Args:
        model: the network.
        preprocessing: what its images go through.
        classes: class folders in the order of the logits.
    """
    is_imagenet = tuple(classes) == class_list(IMAGENET).wnids
    return WeightsMetadata(
        model=model.config.name,
        preprocessing=preprocessing.to_dict(),
        bn_epsilon=model.config.bn_epsilon,
        padding=model.config.padding,
        class_list=IMAGENET if is_imagenet else None,
        classes=() if is_imagenet else tuple(classes),
    )
