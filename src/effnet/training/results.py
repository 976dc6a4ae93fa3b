"""Results of a validation over all processes, by class and in total."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Results:
    """Counts over a validation set, and what follows from them.

    Attributes:
        images: number of images.
        loss: mean loss.
        top1, topk: images with a label of theirs at the largest logit, and among the K largest, in percent.
        ece: expected calibration error.
        right: (C,) images of a class for which it is predicted.
        predicted: (C,) images for which a class is predicted.
        actual: (C,) images of a class.
        several_labels: an image may have several labels.
        average_precision: (C,) average precision, NaN for a class without images; None if it was not measured.
        auroc: (C,) area under the ROC curve, NaN where all images or none are of the class; None likewise.
        thresholds: (C,) probabilities from which on a label was predicted; None for images with one label.
        chosen_thresholds: (C,) those with the best F1 score on this set; None for images with one label.
    """

    images: int
    loss: float
    top1: float
    topk: float
    ece: float
    right: Values
    predicted: Values
    actual: Values
    several_labels: bool
    average_precision: Any = None
    auroc: Any = None
    thresholds: Any = None
    chosen_thresholds: Any = None

    @property
    def is_ranked(self) -> bool:
        """True if the answers were sorted for each class."""
        return self.average_precision is not None

    @cached_property
    def precision(self) -> Values:
        """(C,) share of the images for which a class is predicted that are of the class; 0 without any."""
        return _ratio(self.right, self.predicted)

    @cached_property
    def recall(self) -> Values:
        """(C,) share of a class's images for which it is predicted; 0 without any."""
        return _ratio(self.right, self.actual)

    @cached_property
    def f1(self) -> Values:
        """(C,) harmonic mean of precision and recall; 0 without any image."""
        return _ratio(2 * self.right, self.predicted + self.actual)

    @property
    def counted_classes(self) -> npt.NDArray[np.bool_]:
        """(C,) True for the classes that count in a mean."""
        if self.several_labels:
            return np.ones(len(self.actual), dtype=bool)
        return (self.actual + self.predicted) > 0

    def by_class(self, index: int) -> dict[str, float]:
        """Return the metrics of a class."""
        values = {
            "images": self.actual[index],
            "precision": self.precision[index],
            "recall": self.recall[index],
            "f1": self.f1[index],
        }
        if self.thresholds is not None:
            values["threshold"] = self.thresholds[index]
        if self.is_ranked:
            values |= {"average_precision": self.average_precision[index], "auroc": self.auroc[index]}
        return {name: float(value) for name, value in values.items()}


def _ratio(part: Values, whole: Values) -> Values:
    return part / np.maximum(whole, 1)
