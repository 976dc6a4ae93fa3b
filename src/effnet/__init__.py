"""Train, quantize and deploy EfficientNet image classifiers in PyTorch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effnet.api import create_model, list_models, load_weights

__all__ = ["create_model", "list_models", "load_weights"]


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import, and `effnet --help` needs none of it.
    if name in __all__:
        import effnet.api

        return getattr(effnet.api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
