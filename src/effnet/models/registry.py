"""Models by name."""

import difflib
import typing
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from effnet.models.config import MODEL_CONFIGS, Activation, ModelConfig
from effnet.runtime.errors import UserError

if TYPE_CHECKING:
    from effnet.models.efficientnet import EfficientNet

_OVERRIDES = {field.name for field in fields(ModelConfig)} - {"name"}


def list_models() -> list[str]:
    """Return the names of all models, in the order of the family."""
    return list(MODEL_CONFIGS)


def model_config(name: str, **overrides: Any) -> ModelConfig:
    """Return the configuration of a model, with overrides applied and checked.

    Args:
        name: a name of `list_models`.
        **overrides: fields of `ModelConfig` other than `name`; None keeps the row's value.

    Raises:
        UserError: unknown name (the nearest is suggested), unknown override, or a value out of range.
    """
    if name not in MODEL_CONFIGS:
        near = difflib.get_close_matches(name, MODEL_CONFIGS, n=1, cutoff=0.0)
        raise UserError(f"unknown model {name!r}; did you mean {near[0]!r}? `effnet models` lists all")
    if unknown := sorted(set(overrides) - _OVERRIDES):
        raise UserError(f"unknown model override {unknown[0]!r}; known are {', '.join(sorted(_OVERRIDES))}")
    given = {key: value for key, value in overrides.items() if value is not None}
    config = replace(MODEL_CONFIGS[name], **given)
    _check(config)
    return config


def _check(config: ModelConfig) -> None:
    activations = typing.get_args(Activation)
    checks = {
        "num_classes": (
            _is_whole(config.num_classes, 1, 1_000_000),
            "a whole number of at most 1,000,000, at least 1",
        ),
        "image_size": (_is_whole(config.image_size, 1, 4096), "a whole number of at most 4096, at least 1"),
        "dropout": (0.0 <= config.dropout < 1.0, "in [0, 1)"),
        "survival_prob": (0.0 < config.survival_prob <= 1.0, "in (0, 1]"),
        "bn_momentum": (0.0 <= config.bn_momentum <= 1.0, "in [0, 1]"),
        "bn_epsilon": (0.0 < config.bn_epsilon <= 1.0, "in (0, 1]"),
        "conv_init": (config.conv_init in ("fan_in", "fan_out"), "fan_in or fan_out"),
        "activation": (config.activation in activations, f"one of {', '.join(activations)}"),
        "padding": (config.padding in ("symmetric", "same"), "symmetric or same"),
        "squeeze_width": (config.squeeze_width in ("input", "expanded", "none"), "input, expanded or none"),
    }
    for name, (holds, allowed) in checks.items():
        if not holds:
            raise UserError(f"{name} must be {allowed}, not {getattr(config, name)!r}")


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def build_model(name: str, **overrides: Any) -> "EfficientNet":
    """Return a freshly initialised float model; quantized ones are made by `effnet.create_model`.

    Args and errors are those of `model_config`.
    """
    from effnet.models.efficientnet import EfficientNet  # PyTorch, which listing the models does not need

    return EfficientNet(model_config(name, **overrides))
