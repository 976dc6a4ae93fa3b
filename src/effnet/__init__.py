"""Train, quantize and deploy EfficientNet image classifiers in PyTorch."""

from typing import TYPE_CHECKING

from effnet.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from effnet.api import create_model, load_weights
    from effnet.models.registry import list_models

__all__ = ["create_model", "list_models", "load_weights"]

# PyTorch takes seconds to import, and neither `effnet --help` nor `list_models` needs it.
__getattr__ = lazy_names(
    __name__,
    {
        "create_model": "effnet.api",
        "list_models": "effnet.models.registry",
        "load_weights": "effnet.weights.loading",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
