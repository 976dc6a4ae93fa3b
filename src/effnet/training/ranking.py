"""Metrics that sort the answers for each class: average precision, AUROC, and thresholds with the best F1 score.

They need every image's probabilities. Each process keeps its own; at the end the processes exchange some classes at a
time, so that the memory of one is that of its images and of `_AT_ONCE` probabilities.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effnet.runtime.processes import Processes

_AT_ONCE = 1 << 24
"""probabilities of all images that are exchanged at a time"""

MOST_SCORES = 20_000_000
"""probabilities of a validation set, images times classes, up to which ``--ranking-metrics auto`` ranks"""

DEFAULT_THRESHOLD = 0.5
"""of a class for which none can be chosen"""


class Scores:
    """This process's probabilities of a validation set.

    Args:
        num_classes: classes.
        chooses: choose thresholds, for images with several labels.
    """

    def __init__(self, num_classes: int, *, chooses: bool) -> None:
        self._num_classes, self._chooses = num_classes, chooses
        self._probabilities: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch: probabilities float32 (N, C), and bool (N, C) with True for each label of an image."""
        self._probabilities.append(probabilities)
        self._labels.append(labels)

    def ranked(self, processes: Processes) -> dict[str, Any]:
        """Return float64 (C,) each: `average_precision`, `auroc` and, if chosen, `chosen_thresholds`.

        Every process must call this; the result is the same in all.
        """
        rows = [
            (average_precision(p, own), auroc(p, own), best_threshold(p, own) if self._chooses else 0.0)
            for p, own in self._by_class(processes)
        ]
        precision, area, thresholds = np.array(rows, dtype=np.float64).T
        found = {"average_precision": precision, "auroc": area}
        return {**found, "chosen_thresholds": thresholds} if self._chooses else found

    def _by_class(self, processes: Processes) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the probabilities and labels of all images for one class after the other, on the CPU."""
        own = sum(map(len, self._labels))
        images = max(1, sum(processes.gather(own)))
        step = max(1, _AT_ONCE // images)
        for first in range(0, self._num_classes, step):
            part = slice(first, min(first + step, self._num_classes))
            mine = _joined(self._probabilities, part), _joined(self._labels, part)
            every = processes.gather(mine)
            probabilities, labels = (np.concatenate(each) for each in zip(*every, strict=True))
            for column in range(part.stop - part.start):
                yield torch.from_numpy(probabilities[:, column]), torch.from_numpy(labels[:, column])


def _joined(batches: list[Tensor], part: slice) -> npt.NDArray[Any]:
    if not batches:
        return np.zeros((0, part.stop - part.start))
    joined: npt.NDArray[Any] = torch.cat([batch[:, part] for batch in batches]).cpu().numpy()
    return joined


def average_precision(probabilities: Tensor, labels: Tensor) -> float:
    """Return the average precision of a class, (N,) each; NaN without an image of it."""
    if not labels.any():
        return float("nan")
    right, predicted = _counts(probabilities, labels)
    precision, recall = right / predicted, right / right[-1]
    return float((recall.diff(prepend=recall.new_zeros(1)) * precision).sum())


def auroc(probabilities: Tensor, labels: Tensor) -> float:
    """Return the area under the ROC curve of a class, (N,) each; NaN unless there are images of it and others."""
    if not labels.any() or labels.all():
        return float("nan")
    right, predicted = _counts(probabilities, labels)
    wrong = predicted - right
    start = right.new_zeros(1)
    return float(
        torch.trapezoid(torch.cat([start, right / right[-1]]), torch.cat([start, wrong / wrong[-1]]))
    )


def _counts(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many images of a class, and of all, have at least each of the probabilities, from the highest down.

    Torchmetrics counts the same, but its import takes as long as PyTorch's.

    Returns:
        float64, one element for each probability that differs from the others.
    """
    p, order = probabilities.sort(descending=True, stable=True)
    last = _last_of_equals(p)
    return labels[order].cumsum(0)[last].double(), torch.arange(1, len(p) + 1)[last].double()


def _last_of_equals(p: Tensor) -> Tensor:
    """Return bool (N,): True where the next of sorted probabilities is another one."""
    return torch.cat([p[1:] != p[:-1], torch.tensor([True])])


def best_threshold(probabilities: Tensor, labels: Tensor) -> float:
    """Return the probability from which on a label is predicted with the best F1 score.

    It lies halfway between the lowest probability that is predicted and the next one, or 0 below it; of several with
    the same score the highest is taken.

    Args:
        probabilities: float32 (N,).
        labels: bool (N,).
    """
    if not labels.any():
        return DEFAULT_THRESHOLD
    p, order = probabilities.sort(descending=True, stable=True)
    found = labels[order].cumsum(0)
    # Equal probabilities are predicted together.
    last = _last_of_equals(p)
    score = 2 * found.double() / (torch.arange(1, len(p) + 1) + found[-1])
    best = int(score.where(last, -1).argmax())
    lower = p[best + 1] if best + 1 < len(p) else torch.zeros(())
    middle = (p[best] + lower) / 2
    return float(middle if middle > lower else p[best])
