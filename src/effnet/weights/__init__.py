"""Weights from elsewhere: found, downloaded, recognised, checked and loaded; written for others to load."""

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
from effnet.weights.metadata import IMAGENET, WeightsMetadata, class_list
from effnet.weights.published import (
    PUBLISHERS,
    find_weights,
    list_weights,
    published_tag,
    publishers_of,
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
