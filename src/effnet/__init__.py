"""Train, quantize and deploy EfficientNet image classifiers in PyTorch."""

from typing import TYPE_CHECKING

from effnet.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from effnet.api import create_model, load_weights
    from effnet.fitting.run import CrossValidation, Run, fit
    from effnet.inference.classifier import Classifier, load
    from effnet.inference.predict.run import predict
    from effnet.models.registry import list_models
    from effnet.runtime.errors import UserError

__all__ = [
    "Classifier",
    "CrossValidation",
    "Run",
    "UserError",
    "create_model",
    "fit",
    "list_models",
    "load",
    "load_weights",
    "predict",
]

# PyTorch takes seconds to import, and neither `effnet --help` nor `list_models` needs it.
__getattr__ = lazy_names(
    __name__,
    {
        "Classifier": "effnet.inference.classifier",
        "CrossValidation": "effnet.fitting.run",
        "Run": "effnet.fitting.run",
        "UserError": "effnet.runtime.errors",
        "create_model": "effnet.api",
        "fit": "effnet.fitting.run",
        "list_models": "effnet.models.registry",
        "load": "effnet.inference.classifier",
        "load_weights": "effnet.weights.loading",
        "predict": "effnet.inference.predict.run",
    },
)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
