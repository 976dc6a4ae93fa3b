"""From a resolved recipe to the model of a run, its preprocessing and its metadata."""

from collections.abc import Sequence
from typing import Any

import torch

from effnet.data.preprocessing import Preprocessing
from effnet.kernels.workload import Workload
from effnet.models.efficientnet import EfficientNet
from effnet.recipe import ResolvedRecipe
from effnet.runtime.errors import UserError
from effnet.runtime.precision import AUTOCAST_DTYPES
from effnet.training.freezing import freeze, held_parts
from effnet.training.origin import Origin
from effnet.weights import IMAGENET, Build, WeightsMetadata, class_list, create_model, load_model


def build_model(
    recipe: ResolvedRecipe,
    origin: Origin,
    device: torch.device,
    *,
    build: Build = EfficientNet,
    keeps_classifier: bool = False,
) -> EfficientNet:
    """Return the model of a recipe on its device, in its memory format, with the origin's weights.

    Args:
        recipe: settings of the run.
        origin: the weights.
        device: where the model goes.
        build: makes the model of a configuration.
        keeps_classifier: use the weights' own classifier and its number of classes.

    Raises:
        UserError: weights that don't fit.
        UserError: a classifier that is to be kept but has another number of classes than the data.
    """
    settings = recipe.model
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
    held = held_parts(model, settings)
    if held and settings.unfreeze_every is None:
        freeze(model, held)
    layout = torch.channels_last if recipe.compute.memory_format == "nhwc" else torch.contiguous_format
    return model.to(device=device, memory_format=layout)  # type: ignore[call-overload]


def preprocessing_of(recipe: ResolvedRecipe, origin: Origin) -> Preprocessing:
    """Return the preprocessing of a run: the recipe's sizes, and the normalisation of the weights or ImageNet's.

    Raises:
        UserError: sizes that do not go together.
    """
    sizes: dict[str, Any] = {
        "image_size": recipe.model.image_size,
        "resize": recipe.data.resize,
        "interpolation": recipe.data.interpolation,
    }
    of_weights = origin.metadata.preprocessing if origin.metadata else {}
    return Preprocessing.from_dict({**of_weights, **sizes})


def workload_of(recipe: ResolvedRecipe) -> Workload:
    """Return the load that a training by a recipe puts on its model."""
    compute = recipe.compute
    return Workload(
        recipe.optimizer.batch_size,
        recipe.model.image_size,
        AUTOCAST_DTYPES.get(compute.precision),
        compute.compile,
        channels_last=compute.memory_format == "nhwc",
        batch_statistics=recipe.model.freeze == "none" and recipe.model.bn_statistics == "batch",
    )


def metadata_of(
    model: EfficientNet,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    thresholds: Sequence[float] = (),
) -> WeightsMetadata:
    """Return the metadata of a checkpoint or exported model, so that nobody has to repeat it to use the model.

    Args:
        model: the network.
        preprocessing: preprocessing of its images.
        classes: class folders in the order of the logits.
        thresholds: probability of each class from which on an image has the label; empty for images with one label.
    """
    is_imagenet = tuple(classes) == class_list(IMAGENET).wnids
    return WeightsMetadata(
        model=model.config.name,
        preprocessing=preprocessing.to_dict(),
        bn_epsilon=model.config.bn_epsilon,
        padding=model.config.padding,
        class_list=IMAGENET if is_imagenet else None,
        classes=() if is_imagenet else tuple(classes),
        thresholds=tuple(thresholds),
    )
