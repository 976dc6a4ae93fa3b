"""From a recipe to a model and what it needs of its images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from effnet.data.preprocessing import Preprocessing
from effnet.kernels.workload import Workload
from effnet.models.efficientnet import EfficientNet
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.precision import AUTOCAST_DTYPES, resolve_precision
from effnet.training.checkpoint import read_checkpoint
from effnet.weights import (
    IMAGENET,
    Build,
    WeightsMetadata,
    class_list,
    create_model,
    load_model,
    published_tag,
    read_metadata,
)

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

    def classes(self, *, keeps_classifier: bool) -> Sequence[str] | None:
        """Class folders in the order of the model's logits; None where it is left to the data.

        Args:
            keeps_classifier: whether the weights are used as they are, not as a start for other classes.
        """
        if self.metadata is None or not (keeps_classifier or self.checkpoint is not None):
            return None
        return self.metadata.class_folders() or None


def find_origin(recipe: Recipe) -> Origin:
    """Read the checkpoint to resume, or find the weights to start from.

    Raises:
        UserError: contradicting flags.
        UserError: a file that can't be used, or no published weights for the model.
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
            "resize": recipe.data.resize or preprocessing.at_size(size).resize,
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


def read_class_map(path: str) -> list[str]:
    """Class folders in a file, one a line.

    Raises:
        UserError: it can't be read, is empty, or names a folder twice.
    """
    try:
        classes = Path(path).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--class-map {path}: {getattr(error, 'strerror', None) or error}") from None
    if not classes:
        raise UserError(f"--class-map {path} names no class; it takes a folder name a line")
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise UserError(f"--class-map {path} names {twice} twice")
    return classes


def build_model(
    recipe: Recipe,
    origin: Origin,
    device: torch.device,
    *,
    build: Build = EfficientNet,
    keeps_classifier: bool = False,
) -> EfficientNet:
    """The model of a resolved recipe on its device, in its memory format, with the origin's weights.

    Args:
        recipe: resolved settings.
        origin: the weights.
        device: where the model goes.
        build: makes the model of a configuration.
        keeps_classifier: use the weights' own classifier and its number of classes.

    Raises:
        UserError: weights that don't fit.
        UserError: a classifier that is to be kept but has another number of classes than the data.
    """
    settings = recipe.model
    assert settings.num_classes is not None, "the recipe is to be resolved"
    overrides: dict[str, Any] = {
        "image_size": settings.image_size,
        "dropout": settings.dropout,
        "survival_prob": settings.survival_prob,
        "bn_momentum": settings.bn_momentum,
        "bn_epsilon": settings.bn_epsilon,
        "conv_init": settings.conv_init,
        "padding": origin.metadata.padding if origin.metadata else None,
    }
    if keeps_classifier and origin.weights is not None:
        model = load_model(origin.weights, name=settings.arch, build=build, **overrides)
        if model.config.num_classes != settings.num_classes:
            raise UserError(
                f"{origin.weights} has {model.config.num_classes} classes, the data {settings.num_classes}; "
                "say with --class-map which folder is which class"
            )
    else:
        model = create_model(
            settings.arch,
            weights=origin.weights,
            num_classes=settings.num_classes,
            build=build,
            **overrides,
        )
    if settings.freeze == "backbone":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("classifier."))
    layout = torch.channels_last if recipe.compute.memory_format == "nhwc" else torch.contiguous_format
    return model.to(device=device, memory_format=layout)  # type: ignore[call-overload]


def workload_of(recipe: Recipe, device: torch.device) -> Workload:
    """Return what a training by a resolved recipe asks of its model."""
    compute, size = recipe.compute, recipe.model.image_size
    assert size is not None, "the recipe is to be resolved"
    return Workload(
        recipe.optimizer.batch_size,
        size,
        AUTOCAST_DTYPES.get(resolve_precision(compute.precision, device)),
        compute.compile,
        channels_last=compute.memory_format == "nhwc",
        batch_statistics=recipe.model.freeze == "none",
    )


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
