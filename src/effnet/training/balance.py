"""Weights and shares of the classes, from the training images or from a file."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effnet.data.labels import SplitLabels
from effnet.recipe import read_yaml
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.plain import parse_json

Values = npt.NDArray[np.float64]


def balanced_weights(labels: SplitLabels, num_classes: int) -> Values:
    """Return weights of the classes in inverse proportion to their images, (num_classes,).

    With one label these are scikit-learn's `compute_class_weight("balanced")`, and 0 for a class without images. With
    several labels it is the number of images without a label for each one with it, at most the number of images.
    """
    counts = labels.counts(num_classes)
    if labels.are_several:
        return (len(labels) - counts) / np.maximum(counts, 1)
    present = np.count_nonzero(counts)
    return np.where(counts, len(labels) / (present * np.maximum(counts, 1)), 0.0)


def log_shares(labels: SplitLabels, num_classes: int) -> Values:
    """Return the logarithm of each class's share of the images, (num_classes,).

    With several labels it is that of the odds of a label. A class without images counts as one that has one.
    """
    counts = np.maximum(labels.counts(num_classes), 1)
    if labels.are_several:
        return np.log(counts / np.maximum(len(labels) - counts, 1))
    return np.log(counts / counts.sum())


def read_weights(path: str, classes: Sequence[str]) -> Values:
    """Return the weights that a CSV, JSON or YAML file has for the classes.

    Args:
        path: the file: a mapping of class to weight, or lines of class and weight.
        classes: names of all classes, in the order of the result.

    Raises:
        UserError: the file can't be read, a class is missing, unknown or there twice, or a value is no weight.
    """
    where = f"--class-weights {path}"
    found = _read(path, where)
    if missing := [name for name in classes if name not in found]:
        raise UserError(f"{where}: no weight for class {missing[0]}{_more(missing)}; name every class")
    if unknown := sorted(set(found) - set(classes)):
        raise UserError(f"{where}: {unknown[0]}{_more(unknown)} is no class of the data")
    weights = np.array([_number(found[name], name, where) for name in classes])
    if not weights.any():
        raise UserError(f"{where}: all weights are 0")
    return weights


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _read(path: str, where: str) -> Mapping[str, Any]:
    readers = {".csv": _read_csv, ".json": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml}
    suffix = Path(path).suffix.lower()
    if suffix not in readers:
        raise UserError(f"{where} must be none, auto, or a file that ends in {', '.join(readers)}")
    return readers[suffix](path, where)


def _text(path: str, where: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: is not text in UTF-8") from None


def _read_csv(path: str, where: str) -> dict[str, str]:
    lines = [line for line in csv.reader(_text(path, where).splitlines()) if line]
    if lines and lines[0][1:] == ["weight"]:
        lines = lines[1:]
    weights: dict[str, str] = {}
    for line in lines:
        if len(line) != 2:
            raise UserError(f"{where}: {one_line(','.join(line))!r} is not a class and its weight")
        if line[0] in weights:
            raise UserError(f"{where}: {one_line(line[0])} is there twice")
        weights[line[0]] = line[1]
    return weights


def _read_json(path: str, where: str) -> Mapping[str, Any]:
    try:
        content = parse_json(_text(path, where))
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix(f'{where}: ')}") from None
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: holds no object with a weight for each class")
    return content


def _read_yaml(path: str, where: str) -> Mapping[str, Any]:
    return read_yaml(path, "--class-weights")


def _number(value: object, name: str, where: str) -> float:
    try:
        weight = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(
            f"{where}: the weight of {one_line(name)} must be a number of 0 or more, not {one_line(value)}"
        )
    return weight
