"""Metadata of weights: their origin, preprocessing, accuracy and classes."""

import functools
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from typing import Any

from effnet.models.config import Padding
from effnet.runtime.errors import UserError
from effnet.runtime.plain import are_names, check_plain, is_count, is_number, parse_json
from effnet.weights.confidence import Confidence
from effnet.weights.history import FORMAT

IMAGENET = "imagenet-1k"
"""Name of ImageNet's list of 1000 classes."""

LARGEST_IMAGE_SIZE = 4096
"""largest side in pixels of the images that weights may be for, as for `--image-size`"""

_PREPROCESSING_FIELDS = ("image_size", "resize", "interpolation", "mean", "std")
_LARGEST_RESIZE = 2 * LARGEST_IMAGE_SIZE
_FARTHEST = 1000.0  # mean and standard deviation from 0 and 1: those for pixels of 0 to 255 are within it
# Part of the names of files that are written, so it must be no path.
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_MOST_CHARACTERS = 10_000_000  # the names of 100,000 classes


@dataclass(frozen=True)
class WeightsMetadata:
    """Metadata of a set of weights, stored with it in checkpoints, weight files and exported models.

    Attributes:
        model: name of the model that the weights are for, such as ``efficientnet-b0``.
        preprocessing: preprocessing of an image, with exactly the fields ``image_size`` (side of the centre
            crop in pixels), ``resize`` (shorter side in pixels before the crop), ``interpolation``
            (``nearest``, ``bilinear``, ``bicubic`` or ``triangular``), ``mean`` and ``std`` (of red, green and
            blue, on the scale of 0 to 1).
        publisher: publisher of the file: ``ngc``, ``torchvision``, ``timm``, ``google``; empty for the user's own.
        name: the publisher's name of this set among others of the same model.
        source: https address of the file, or of the project that the file is part of.
        licence: the weights' licence, an SPDX identifier where there is one.
        file_name: name of the file in the cache directory.
        size: bytes of the file, None where the publisher does not state it.
        sha256: the file's SHA-256 in lower-case hex, or its first digits; None where neither is stated.
        top1: published top-1 accuracy on ImageNet's validation set in per cent; None where there is none.
        top5: the same for top-5.
        bn_epsilon: added to BatchNorm's variance; the logits depend on it.
        padding: padding of strided convolutions, ``symmetric`` or ``same``; the logits depend on it.
        class_list: name of a list that `class_list` knows, ``imagenet-1k``; None for the user's own classes.
        classes: names of the user's own classes, in the order of the logits; empty with `class_list`.
        thresholds: probability of each class, a sigmoid's, from which on an image has the label; empty for images with
            one label, whose probabilities are a softmax's.
        confidence: temperature of the logits and rule for images of none of the classes; None if nothing is known.
        format: of the file; see `effnet.weights.history`.
    """

    model: str
    preprocessing: Mapping[str, Any] = field(hash=False)
    publisher: str = ""
    name: str = ""
    source: str = ""
    licence: str = ""
    file_name: str = ""
    size: int | None = None
    sha256: str | None = None
    top1: float | None = None
    top5: float | None = None
    bn_epsilon: float = 1e-3
    padding: Padding = "symmetric"
    class_list: str | None = None
    classes: tuple[str, ...] = ()
    confidence: Confidence | None = None
    thresholds: tuple[float, ...] = ()
    format: int = FORMAT

    def __post_init__(self) -> None:
        _check(self)

    @property
    def tag(self) -> str:
        """Tag of exactly these weights for ``create_model(..., weights=tag)``: ``publisher/name``."""
        return f"{self.publisher}/{self.name}"

    def class_names(self) -> tuple[str, ...]:
        """Return a name to show for each logit, in order; empty if none are known."""
        return class_list(self.class_list).names if self.class_list else self.classes

    def class_folders(self) -> tuple[str, ...]:
        """Return the name of each class's folder in a data set: ImageNet's wnids, or `classes`."""
        return class_list(self.class_list).wnids if self.class_list else self.classes

    @property
    def several_labels(self) -> bool:
        """True if an image may have several labels."""
        return bool(self.thresholds)

    def without_classes(self) -> "WeightsMetadata":
        """Return a copy without class names and what belongs to them, for a model with another classifier."""
        without: dict[str, Any] = {"class_list": None, "classes": (), "thresholds": (), "confidence": None}
        return replace(self, **without, top1=None, top5=None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON (str, int, float, list, dict, None), the inverse of `from_dict`."""
        values = asdict(self)
        values["classes"] = list(self.classes)
        values["thresholds"] = list(self.thresholds)
        values["preprocessing"] = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in self.preprocessing.items()
        }
        if self.confidence is None:
            del values["confidence"]
        return values

    @classmethod
    def from_dict(cls, values: object) -> "WeightsMetadata":
        """Return the metadata of a dict from `to_dict`; unknown fields are ignored.

        Raises:
            UserError: no such dict, a field is missing or has a value that can't be used, or a later version wrote it.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"metadata of weights: a {type(values).__name__} instead of named values")
        try:
            check_plain(values, characters=_MOST_CHARACTERS)
        except UserError as error:
            raise UserError(f"metadata of weights holds {error}") from None
        _check_format(values.get("format", 1))
        known = {entry.name for entry in fields(cls)}
        given = {key: value for key, value in values.items() if key in known and key != "format"}
        if missing := {"model", "preprocessing"} - set(given):
            raise UserError(f"metadata of weights: {min(missing)} is missing")
        for name in ("classes", "thresholds"):
            if isinstance(given.get(name), list):
                given[name] = tuple(given[name])
        if given.get("confidence") is not None:
            given["confidence"] = Confidence.from_dict(given["confidence"])
        return cls(**given)


def parse_metadata(text: str) -> object:
    """Return the values in a JSON text of metadata, for `WeightsMetadata.from_dict`.

    Raises:
        UserError: not JSON, or more than metadata can be.
    """
    try:
        return parse_json(text, characters=_MOST_CHARACTERS)
    except UserError as error:
        raise UserError(f"metadata of weights: {error}") from None


def _check_format(number: object) -> None:
    if not is_count(number, 1, 1000):
        raise UserError("metadata of weights: format has a value that can't be used")
    if number > FORMAT:  # type: ignore[operator]  # an int
        raise UserError(
            f"metadata of weights: of format {number}, this version of effnet reads up to {FORMAT}; update effnet"
        )


def _check(metadata: WeightsMetadata) -> None:
    """Convert the preprocessing's lists to tuples, and refuse values that a damaged or hostile file may hold."""
    raw = metadata.preprocessing
    if not isinstance(raw, Mapping) or set(raw) != set(_PREPROCESSING_FIELDS):
        raise UserError(f"metadata of weights: preprocessing must hold {', '.join(_PREPROCESSING_FIELDS)}")
    preprocessing = {
        key: tuple(raw[key]) if isinstance(raw[key], list) else raw[key] for key in _PREPROCESSING_FIELDS
    }
    object.__setattr__(metadata, "preprocessing", preprocessing)
    checks = {**_checks_of_input(preprocessing), **_checks_of_model(metadata)}
    if bad := [name for name, holds in checks.items() if not holds]:
        raise UserError(f"metadata of weights: {bad[0]} has a value that can't be used")


def _checks_of_input(preprocessing: Mapping[str, Any]) -> dict[str, bool]:
    image_size = preprocessing["image_size"]
    is_size = is_count(image_size, 1, LARGEST_IMAGE_SIZE)
    return {
        "image_size": is_size,
        "resize": is_size and is_count(preprocessing["resize"], image_size, _LARGEST_RESIZE),
        "interpolation": preprocessing["interpolation"] in ("nearest", "bilinear", "bicubic", "triangular"),
        "mean": _is_rgb(preprocessing["mean"], -_FARTHEST, _FARTHEST),
        "std": _is_rgb(preprocessing["std"], 1 / _FARTHEST, _FARTHEST),
    }


def _checks_of_model(metadata: WeightsMetadata) -> dict[str, bool]:
    texts = ("publisher", "name", "source", "licence", "file_name")
    return {
        "model": isinstance(metadata.model, str) and bool(_MODEL_NAME.fullmatch(metadata.model)),
        **{name: _is_shown(getattr(metadata, name)) for name in texts},
        "size": metadata.size is None or is_count(metadata.size, 0, 1 << 50),
        "sha256": metadata.sha256 is None or _is_digest(metadata.sha256),
        "top1": metadata.top1 is None or is_number(metadata.top1, 0, 100),
        "top5": metadata.top5 is None or is_number(metadata.top5, 0, 100),
        "bn_epsilon": is_number(metadata.bn_epsilon, 1e-30, 1e3),
        "padding": metadata.padding in ("symmetric", "same"),
        "class_list": metadata.class_list in (None, IMAGENET),
        "classes": isinstance(metadata.classes, tuple) and are_names(metadata.classes),
        "thresholds": _are_thresholds(metadata),
    }


def _are_thresholds(metadata: WeightsMetadata) -> bool:
    """Return True for a probability for each class, or none at all."""
    values, names = metadata.thresholds, metadata.classes
    if not isinstance(values, tuple) or not all(is_number(value, 0, 1) for value in values):
        return False
    return not values or not isinstance(names, tuple) or len(names) in (0, len(values))


def _is_rgb(value: object, low: float, high: float) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(is_number(part, low, high) for part in value)


def _is_shown(value: object) -> bool:
    """Return True for a text of one line that a terminal shows as it is."""
    return isinstance(value, str) and value.isprintable()


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{8,64}", value))


@dataclass(frozen=True)
class ClassList:
    """A well-known list of classes; entry i of each tuple belongs to logit i."""

    wnids: tuple[str, ...]
    names: tuple[str, ...]


@functools.cache
def class_list(name: str) -> ClassList:
    """Return a list of classes by its name.

    Args:
        name: ``imagenet-1k``: ImageNet's 1000 classes, by WordNet id and English name.

    Raises:
        UserError: there is no such list.
    """
    if name != IMAGENET:
        raise UserError(f"unknown list of classes {name!r}; there is {IMAGENET}")
    lines = resources.files(__package__).joinpath(f"{name}.txt").read_text(encoding="utf-8").splitlines()
    wnids, names = zip(*(line.split(" ", 1) for line in lines), strict=True)
    return ClassList(wnids, names)
