"""The EfficientNet family: configurations, layers, the network. Plain PyTorch and nothing else."""

from effnet.models.registry import build_model, list_models, model_config

__all__ = ["build_model", "list_models", "model_config"]
