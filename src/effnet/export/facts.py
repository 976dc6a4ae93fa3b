"""Metadata of exported files, whatever their format, and the names of their input and output."""

import logging
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from effnet.recipe.choices import DecodeName
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.processor import sums_overflow
from effnet.weights import WeightsMetadata
from effnet.weights.metadata import parse_metadata

_LOG = logging.getLogger("effnet")

INPUT, OUTPUT = "images", "logits"
PROBABILITIES = "probabilities"
"""second output, on request"""
FEATURES = "features"
"""the only output of a file without logits"""
METADATA_KEY, CLASSES_KEY, PRECISION_KEY = "effnet", "classes", "precision"
THRESHOLDS_KEY = "thresholds"
WEIGHT_BITS_KEY = "weight_bits"
"""``7`` or ``8``, in quantized files"""
FEATURES_KEY = "features"
"""a `FeaturesName`, in files that return features; files without it return logits"""
DECODE_KEY = "decode"
"""a `DecodeName`; files without it decode nothing"""


def read_metadata(values: dict[str, str], path: Path) -> WeightsMetadata:
    """Return the metadata of the model in a file, with a warning if this CPU can't compute what it defines.

    Args:
        values: the file's metadata by key.
        path: the file, for messages.

    Raises:
        UserError: it was written by another program, or returns features.
        UserError: the metadata is damaged.
    """
    if FEATURES_KEY in values:
        raise UserError(f"{path}: returns features, not logits of classes; export it without --features")
    if METADATA_KEY not in values:
        raise UserError(
            f"{path}: holds no metadata of its classes and preprocessing; write it with `effnet export onnx`"
        )
    if values.get(WEIGHT_BITS_KEY) == "8" and sums_overflow():
        _LOG.warning(
            "%s: its weights have 8 bits, for CPUs with VNNI; on this one sums overflow and answers change; quantize "
            "with --cpu any",
            path,
        )
    try:
        return WeightsMetadata.from_dict(parse_metadata(values[METADATA_KEY]))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


@dataclass(frozen=True)
class Port:
    """An input or output of a model in a file.

    Attributes:
        name: its name; None where the format has none.
        dtype: type of its elements: `float32`, `uint8`, or another.
        shape: its sizes; None for each that is open.
    """

    name: str | None
    dtype: str
    shape: tuple[int | None, ...]


def read_decode(values: Mapping[str, str], path: Path) -> DecodeName:
    """Return what the graph of a file does before it normalises.

    Raises:
        UserError: a later version wrote it.
    """
    name = values.get(DECODE_KEY, "none")
    if name not in typing.get_args(DecodeName):
        raise UserError(f"{path}: decodes by {one_line(name)!r:.40}, which this version does not know")
    return typing.cast(DecodeName, name)


def check_ports(
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    metadata: WeightsMetadata,
    path: Path,
    decode: DecodeName = "none",
) -> None:
    """Refuse a file whose network takes or returns something else than its metadata say.

    Args:
        inputs: all inputs.
        outputs: all outputs.
        metadata: the file's.
        path: the file, for the error.
        decode: of the file's metadata.

    Raises:
        UserError: another number of inputs or outputs, or one with another name, type or shape.
    """
    side = metadata.preprocessing["image_size"]
    classes = len(metadata.class_folders()) or None
    images = _INPUTS.get(decode) or {"float32": (None, 3, side, side), "uint8": (None, side, side, 3)}
    if len(inputs) != 1 or not _is(inputs[0], INPUT, images):
        raise UserError(
            f"{path}: takes {_listed(inputs)}, not {INPUT} of {side} x {side} px as its metadata say; export it again"
        )
    wanted = [Port(name, "float32", (None, classes)) for name in (OUTPUT, PROBABILITIES)]
    if not 1 <= len(outputs) <= 2 or not all(
        _is(found, str(port.name), {port.dtype: port.shape})
        for found, port in zip(outputs, wanted, strict=False)
    ):
        of_classes = f" of {classes} classes" if classes else ""
        raise UserError(
            f"{path}: returns {_listed(outputs)}, not {OUTPUT}{of_classes} as its metadata say; export it again"
        )


_INPUTS: dict[DecodeName, dict[str, tuple[int | None, ...]]] = {
    "resize": {"uint8": (None, None, None, 3)},
    "jpeg": {"uint8": (None,)},
}


def _is(port: Port, name: str, shapes: Mapping[str, tuple[int | None, ...]]) -> bool:
    wanted = shapes.get(port.dtype)
    return (
        port.name in (None, name)
        and wanted is not None
        and len(port.shape) == len(wanted)
        and all(found in (None, size) or size is None for found, size in zip(port.shape, wanted, strict=True))
    )


def _listed(ports: Sequence[Port]) -> str:
    return one_line(" and ".join(map(_shown, ports[:3]))) or "nothing"


def _shown(port: Port) -> str:
    sizes = ", ".join("any" if size is None else str(size) for size in port.shape)
    return f"{port.name or 'a tensor'} {port.dtype} ({sizes})"
