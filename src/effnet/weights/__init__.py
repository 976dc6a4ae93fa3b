"""Weights: publishers, files, layouts, metadata, and loading them into models."""

from typing import TYPE_CHECKING

from effnet.runtime.lazy import lazy_names
from effnet.weights.metadata import IMAGENET, WeightsMetadata, class_list
from effnet.weights.published import (
    PUBLISHERS,
    find_weights,
    list_weights,
    published_tag,
    publishers_of,
)

if TYPE_CHECKING:
    from effnet.weights.files import WeightsFile, read_weights, save_weights
    from effnet.weights.layouts import LAYOUTS, Layout, detect_layout
    from effnet.weights.loading import (
        Build,
        LoadReport,
        create_model,
        fitted_state_dict,
        load_model,
        load_weights,
        read_metadata,
    )

__all__ = [
    "IMAGENET",
    "LAYOUTS",
    "PUBLISHERS",
    "Build",
    "Layout",
    "LoadReport",
    "WeightsFile",
    "WeightsMetadata",
    "class_list",
    "create_model",
    "detect_layout",
    "find_weights",
    "fitted_state_dict",
    "list_weights",
    "load_model",
    "load_weights",
    "published_tag",
    "publishers_of",
    "read_metadata",
    "read_weights",
    "save_weights",
]

# These modules import PyTorch, which listing the published weights does not need.
_MODULES = {
    "files": ("WeightsFile", "read_weights", "save_weights"),
    "layouts": ("LAYOUTS", "Layout", "detect_layout"),
    "loading": (
        "Build",
        "LoadReport",
        "create_model",
        "fitted_state_dict",
        "load_model",
        "load_weights",
        "read_metadata",
    ),
}
__getattr__ = lazy_names(
    __name__, {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}
)
