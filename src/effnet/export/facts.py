"""Metadata of exported files, whatever their format, and the names of their input and output."""

import json
from pathlib import Path

from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata

INPUT, OUTPUT = "images", "logits"
METADATA_KEY, CLASSES_KEY, PRECISION_KEY = "effnet", "classes", "precision"


def read_metadata(values: dict[str, str], path: Path) -> WeightsMetadata:
    """Return the metadata of the model in a file.

    Args:
        values: the file's metadata by key.
        path: the file, for the error.

    Raises:
        UserError: it was written by another program.
        UserError: the metadata is damaged.
    """
    if METADATA_KEY not in values:
        raise UserError(
            f"{path}: holds no metadata of its classes and preprocessing; write it with `effnet export onnx`"
        )
    try:
        return WeightsMetadata.from_dict(json.loads(values[METADATA_KEY]))
    except json.JSONDecodeError:
        raise UserError(f"{path}: its metadata is damaged") from None
