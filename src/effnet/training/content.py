"""Checks of a checkpoint's content, whoever wrote it, before any of it is used."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from effnet.data.sources import SplitRecord
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.plain import check_plain, is_count, is_number
from effnet.training.state import Progress
from effnet.weights import WeightsMetadata
from effnet.weights.confidence import Confidence
from effnet.weights.files import CONFIDENCE_OF_EMA
from effnet.weights.metadata import LARGEST_IMAGE_SIZE
from effnet.weights.tensors import check_finite, check_tensors

_MOST_STEPS = 1 << 48
_LONGEST_NAME = 100


def check_content(content: Mapping[Any, Any], path: object) -> None:
    """Refuse a checkpoint with an entry that is not what it must be. Entries that are absent or unknown are accepted.

    Args:
        content: what a file holds.
        path: the file, for the error.

    Raises:
        UserError: an entry of another kind; it is named.
    """
    checks = {**_CHECKS, **_CHECKS_OF_OURS} if "recipe" in content else _CHECKS
    for name, check in checks.items():
        if name in content:
            try:
                check(content[name])
            except UserError as error:
                raise UserError(f"--resume {path}: {name}: {error}") from None
    if "recipe" in content:
        _check_classes(content, path)


@contextmanager
def resuming(path: object) -> Iterator[None]:
    """Report a state that PyTorch or the run does not take as an error of the checkpoint.

    Args:
        path: the checkpoint, which every error of the block then names.

    Raises:
        UserError: the block failed with one, or with an error that a wrong state causes.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except UserError as error:
        reason = str(error).removeprefix("--resume: ")
        raise UserError(reason if str(path) in reason else f"--resume {path}: {reason}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(
            f"--resume {path}: its training state is damaged or of another version ({reason}); for its weights alone "
            "use --pretrained-from-file"
        ) from error


def _check_arch(value: object) -> None:
    if not isinstance(value, str) or not value.isprintable() or len(value) > _LONGEST_NAME:
        raise UserError("not the name of a model")


def _check_weights(value: object) -> None:
    check_tensors(value, "the model")


def _check_average(value: object) -> None:
    if value is not None:
        check_tensors(value, "the average")


def _check_metadata(value: object) -> None:
    if value is not None:
        WeightsMetadata.from_dict(value)


def _check_confidence(value: object) -> None:
    if value is not None:
        Confidence.from_dict(value)


def _check_count(value: object) -> None:
    if not is_count(value, 0, _MOST_STEPS):
        raise UserError("not a number of epochs")


def _check_plain_mapping(value: object) -> None:
    if not isinstance(value, Mapping):
        raise UserError(f"a {type(value).__name__}, not named values")
    check_plain(value)


def _check_recipe(value: object) -> None:
    """Check the settings that a resumed run takes over; what the run itself was told is not among them."""
    _check_plain_mapping(value)
    assert isinstance(value, Mapping)
    known = Recipe().to_dict()
    try:
        recipe = Recipe.from_dict(
            {group: value[group] for group in known if group in value and group != "run"}
        )
    except UserError as error:
        raise UserError(f"{one_line(error)}; it is damaged or of another version of effnet") from None
    if (recipe.model.image_size or 0) > LARGEST_IMAGE_SIZE:
        raise UserError(f"image_size {recipe.model.image_size} is more than {LARGEST_IMAGE_SIZE}")


def _check_optimizer(value: object) -> None:
    if not isinstance(value, Mapping):
        raise UserError(f"a {type(value).__name__}, not a state by parameter")
    for name, state in value.items():
        if not isinstance(name, str) or not isinstance(state, Mapping):
            raise UserError("not a state by parameter")
        if state:
            check_tensors(state, f"state of {one_line(name)}")
            check_finite(state, f"state of {one_line(name)}", takes_infinity=True)


def _check_loss_scaler(value: object) -> None:
    _check_plain_mapping(value)
    assert isinstance(value, Mapping)
    is_right = is_number(value.get("scale"), 0, 1e30) and is_count(
        value.get("_growth_tracker"), 0, _MOST_STEPS
    )
    if value and not is_right:
        raise UserError("holds no loss scale")


def _check_progress(value: object) -> None:
    if not isinstance(value, Mapping):
        raise UserError(f"a {type(value).__name__}, not named values")
    if missing := [name for name in ("epoch", "step") if name not in value]:
        raise UserError(f"holds no {missing[0]}")
    for field in fields(Progress):
        is_right = _KINDS.get(str(field.type), _is_names)
        if field.name in value and not is_right(value[field.name]):
            raise UserError(f"{field.name} is not of type {field.type}")


def _is_float(value: object) -> bool:
    # A run that diverged may have left a metric that is not finite.
    return isinstance(value, float) or is_number(value, -1e30, 1e30)


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


_KINDS: dict[str, Callable[[object], bool]] = {
    str(int): lambda value: is_count(value, 0, _MOST_STEPS),
    str(float): _is_float,
    str(float | None): lambda value: value is None or _is_float(value),
    str(str): lambda value: isinstance(value, str) and len(value) <= _LONGEST_NAME,
    str(bool): lambda value: isinstance(value, bool),
}


def _check_loader(value: object) -> None:
    _check_plain_mapping(value)
    assert isinstance(value, Mapping)
    if not all(is_count(value.get(name), 0, _MOST_STEPS) for name in ("epoch", "step")):
        raise UserError("holds no position: epoch and step")


def _check_in_epoch(value: object) -> None:
    _check_plain_mapping(value)
    assert isinstance(value, Mapping)
    counts = ("batches", "losses", "skipped_steps")
    if not all(is_count(value.get(name, 0), 0, _MOST_STEPS) for name in counts):
        raise UserError(f"{', '.join(counts)} are not all counts")
    if not _is_float(value.get("loss", 0.0)):
        raise UserError("loss is not a number")


def _check_last_average(value: object) -> None:
    if not isinstance(value, Mapping):
        raise UserError(f"a {type(value).__name__}, not named values")
    if not all(is_count(value.get(name), 0, _MOST_STEPS) for name in ("epochs", "next")):
        raise UserError("holds no number of epochs")
    check_tensors(value.get("state_dict"), "the mean")


def _check_thresholds(value: object) -> None:
    if not isinstance(value, list) or not all(is_number(each, 0, 1) for each in value):
        raise UserError("not a probability for each class")


def _check_processes(value: object) -> None:
    if not isinstance(value, list):
        raise UserError(f"a {type(value).__name__}, not a state of each process")
    for state in value:
        if not isinstance(state, Mapping):
            raise UserError("not a state of each process")
        _check_loader(state.get("loader"))


_CHECKS: dict[str, Callable[[Any], object]] = {
    "arch": _check_arch,
    "epoch": _check_count,
    "metadata": _check_metadata,
    CONFIDENCE_OF_EMA: _check_confidence,
    "state_dict": _check_weights,
    "state_dict_ema": _check_average,
}
_CHECKS_OF_OURS: dict[str, Callable[[Any], object]] = {
    "recipe": _check_recipe,
    "optimizer": _check_optimizer,
    "progress": _check_progress,
    "loader": _check_loader,
    "processes": _check_processes,
    "layout": _check_plain_mapping,
    "in_epoch": _check_in_epoch,
    "metrics": _check_plain_mapping,
    "log": _check_plain_mapping,
    "loss_scaler": _check_loss_scaler,
    "split": SplitRecord.from_dict,
    "thresholds": _check_thresholds,
    "average_last": _check_last_average,
}


def _check_classes(content: Mapping[Any, Any], path: object) -> None:
    """Refuse a number of classes other than the classifier's, which would decide the size of the model."""
    weight = content["state_dict"].get("classifier.fc.weight")
    stated = content["recipe"].get("model", {}).get("num_classes")
    if stated is not None and isinstance(weight, Tensor) and stated != weight.shape[0]:
        raise UserError(
            f"--resume {path}: its recipe says {stated} classes, its classifier has {weight.shape[0]}"
        )
