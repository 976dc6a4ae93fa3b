"""Answers of a model on a validation set, as a report shows them: confusions, classes, mistakes, confidence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Bin = tuple[float, float, int, float, float]
"""bounds of the confidence, answers, their mean confidence, and the share of them that is right"""


@dataclass(frozen=True)
class Answer:
    """A class and its probability in [0, 1]."""

    label: str
    probability: float


@dataclass(frozen=True)
class Mistake:
    """An image for which another class than its own has the largest probability.

    Attributes:
        file: name of the image; empty where it has none.
        label: its class.
        answers: the most probable classes, the first of which is wrong.
        pixels: uint8 (H, W, 3), what the model saw of the image.
        heat_map: uint8 (H, W, 3), the same under the parts that speak for the first answer; None without one.
    """

    file: str
    label: str
    answers: tuple[Answer, ...]
    pixels: "npt.NDArray[np.uint8]"
    heat_map: "npt.NDArray[np.uint8] | None" = None


@dataclass(frozen=True)
class Findings:
    """The answers of a validation.

    Attributes:
        source: the weights or the files that they come from.
        classes: names in the order of the logits.
        metrics: as `effnet evaluate` prints them, without their prefix.
        cells: positions of the true and the predicted class, and images, wherever there are images.
        by_class: metrics of each class that has images.
        mistakes: the most confident ones, the most confident first.
        reliability: bins by temperature; empty for images with several labels.
    """

    source: str
    classes: Sequence[str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    cells: Sequence[tuple[int, int, int]] = ()
    by_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    mistakes: Sequence[Mistake] = ()
    reliability: Mapping[float, Sequence[Bin]] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Validation images; 0 where that is not known."""
        return int(self.metrics.get("images", sum(count for _, _, count in self.cells)))
