"""Metrics of each class of a validation set, for `effnet evaluate --per-class`."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from effnet.runtime.files import atomic_file
from effnet.training.confusion import ConfusionMatrix
from effnet.training.results import Results

ClassMetrics = Mapping[str, Mapping[str, float]]
"""metrics by class"""

_COUNTED = ("images", "right", "top1", "mostly_mistaken_for")


def class_metrics(results: Results, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 score and, where they were measured, average precision, AUROC and threshold.

    Args:
        results: of a validation.
        classes: names of the classes in the order of the logits.

    Returns:
        The metrics of each class that has images, in shares of 1.
    """
    return {name: results.by_class(index) for index, name in enumerate(classes) if results.actual[index]}


def write_per_class(path: Path, by_class: ClassMetrics, matrix: ConfusionMatrix | None) -> None:
    """Write a CSV file with a line for each class that has images.

    Args:
        path: the file.
        by_class: see `class_metrics`.
        matrix: adds accuracy and the usual mistake; None for images with several labels.
    """
    mistakes = matrix.mistakes() if matrix is not None else {}
    names = list(next(iter(by_class.values()), {"images": 0.0}))[1:]
    head = ["class", *(_COUNTED if matrix is not None else _COUNTED[:1]), *names]
    with atomic_file(path, "w") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for name, metrics in by_class.items():
            counted = mistakes.get(name, (int(metrics["images"]),))
            writer.writerow([name, *counted, *(_cell(metrics[key]) for key in names)])


def _cell(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else ""
