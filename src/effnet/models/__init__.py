"""The EfficientNet family. This package imports nothing else of the project."""

from effnet.models.errors import ModelError
from effnet.models.registry import build_model, list_models, model_config

__all__ = ["ModelError", "build_model", "list_models", "model_config"]
