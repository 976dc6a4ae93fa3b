"""The EfficientNet family. This package imports nothing else of the project."""

from effnet.models.errors import ModelError
from effnet.models.registry import build_model, list_models, model_config
from effnet.models.weights import WeightsMetadata, create_model, load_weights

__all__ = [
    "ModelError",
    "WeightsMetadata",
    "build_model",
    "create_model",
    "list_models",
    "load_weights",
    "model_config",
]
