"""A format as it is written together with others: whether it can be here, and how its file is written and run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from effnet.export.trained import ModelChoice, TrainedModel
from effnet.recipe.choices import EngineName

Run = Callable[[Path, npt.NDArray[Any]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]]


@dataclass(frozen=True)
class Order:
    """A model to be written.

    Attributes:
        choice: where the model came from.
        trained: the model.
        device: where PyTorch computes the logits to compare with.
        install: a converter or a runtime may be installed into the cache if it is not there.
    """

    choice: ModelChoice
    trained: TrainedModel
    device: torch.device
    install: bool = False


@dataclass(frozen=True)
class Written:
    """A file, or a folder, that has been written.

    Attributes:
        path: where.
        size: bytes of all its files.
        difference: largest absolute difference of a logit to PyTorch's; None where it could not be compared.
    """

    path: Path
    size: int
    difference: float | None


@dataclass(frozen=True)
class Writer:
    """A format's part of `effnet export all`.

    Attributes:
        suffix: of the file's name; empty for a folder.
        missing: returns why the format can't be written here, and the remedy, in one line; None where it can. Its
            argument is `Order.install`.
        write: writes the file behind the format's own gate: (order, path).
        engine: engine that runs the file; None for none of this project's.
        run: runs the file in a process of its own: file and float32 images (N, 3, H, W) in, logits and the seconds of
            each image out; None where `engine` does, or nothing here.
    """

    suffix: str
    missing: Callable[[bool], str | None]
    write: Callable[[Order, Path], Written]
    engine: EngineName | None = None
    run: Run | None = None
