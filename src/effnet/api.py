"""Public functions that combine several packages."""

import os
from typing import Any

from effnet.models import list_models
from effnet.models.efficientnet import EfficientNet
from effnet.quantization.model import build
from effnet.weights import load_weights, loading

__all__ = ["create_model", "list_models", "load_weights"]


def create_model(
    name: str, *, weights: str | os.PathLike[str] | None = None, num_classes: int = 1000, **overrides: Any
) -> EfficientNet:
    """Create a model by its name, with published weights, those in a file, or freshly initialised.

    Args:
        name: a name of `list_models`, such as ``efficientnet-b0`` or ``efficientnet-quant-b0``.
        weights: None; a publisher (``ngc``, ``torchvision``, ``timm``, ``google``) or one of its sets
            (``timm/tf_efficientnet_b0.ap_in1k``); a path (.pth, .pth.tar, .safetensors); or a repository on the hub,
            ``hf-hub:owner/name``.
        num_classes: number of logits. A classifier with another number of classes is left out, with a warning.
        overrides: fields of `effnet.models.config.ModelConfig`. BatchNorm's epsilon and padding follow the weights
            unless given.

    Returns:
        The model in training mode on the CPU; its `metadata` is that of the weights, or None.

    Raises:
        UserError: unknown name or override; weights that can't be found, downloaded or read, or don't fit.

    Example:
        >>> model = create_model("efficientnet-b0", num_classes=10)
        >>> model.get_classifier().out_features
        10
    """
    return loading.create_model(name, weights=weights, num_classes=num_classes, build=build, **overrides)
