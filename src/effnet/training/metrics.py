"""Validation metrics, one row each.

A new one is a row of `METRICS` and its name in `effnet.recipe.choices.MetricName`: validation then measures it, and
``--best-metric`` offers it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from effnet.recipe.choices import MetricName
from effnet.runtime.registry import registry
from effnet.training.results import Results, Values


@dataclass(frozen=True)
class Metric:
    """A metric of a validation set.

    Attributes:
        name: value of ``--best-metric``, and its name in the log unless `name_of` says otherwise.
        summary: the metric and its unit, for the documentation's table.
        higher_is_better: False for losses.
        value: returns it from the results of a validation; NaN where it is not defined.
        ranks: True if it is found by sorting the answers for each class, see ``--ranking-metrics``.
        name_of: returns the name in the log from the setting ``--topk``.
    """

    name: str
    summary: str
    higher_is_better: bool
    value: Callable[[Results], float]
    ranks: bool = False
    name_of: Callable[[int], str] | None = None

    def key(self, topk: int) -> str:
        """Return the metric's name in the log, such as ``top5``."""
        return self.name if self.name_of is None else self.name_of(topk)

    def is_better(self, value: float, than: float | None) -> bool:
        """Return True if `value` is better than another one.

        NaN and infinity are never better; any other number is better than they are, and better than None.
        """
        if not math.isfinite(value):
            return False
        if than is None or not math.isfinite(than):
            return True
        return value > than if self.higher_is_better else value < than


def _mean(values: Values) -> float:
    """Return the mean of what is defined; NaN if nothing is."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else math.nan


def _macro(values: Callable[[Results], Values]) -> Callable[[Results], float]:
    """Return the plain mean over the classes, as scikit-learn has it: those with images or predictions.

    With several labels these are all classes.
    """
    return lambda results: _mean(values(results)[results.counted_classes])


def _weighted(values: Callable[[Results], Values]) -> Callable[[Results], float]:
    """Return the mean over the classes weighted by their images."""

    def mean(results: Results) -> float:
        total = results.actual.sum()
        return float((values(results) * results.actual).sum() / total) if total else 0.0

    return mean


METRICS = registry(
    MetricName,
    Metric(
        "loss",
        "Mean cross entropy, without label smoothing; with several labels the binary one, over images and classes",
        False,
        lambda results: results.loss,
    ),
    Metric("top1", "Images with a label of theirs at the largest logit, in percent", True, lambda r: r.top1),
    Metric(
        "topk",
        "Images with a label of theirs among the K largest logits of `--topk`, in percent; logged as `top5` for 5",
        True,
        lambda results: results.topk,
        name_of=lambda topk: f"top{topk}",
    ),
    Metric(
        "balanced_accuracy",
        "Mean over the classes of the share of their images that is found",
        True,
        lambda results: _mean(results.recall[results.actual > 0]),
    ),
    Metric("precision", "Precision, mean over the classes", True, _macro(lambda r: r.precision)),
    Metric("recall", "Recall, mean over the classes", True, _macro(lambda r: r.recall)),
    Metric("f1", "F1 score, mean over the classes", True, _macro(lambda r: r.f1)),
    Metric(
        "precision_weighted",
        "Precision, mean weighted by the classes' images",
        True,
        _weighted(lambda r: r.precision),
    ),
    Metric(
        "recall_weighted", "Recall, mean weighted by the classes' images", True, _weighted(lambda r: r.recall)
    ),
    Metric("f1_weighted", "F1 score, mean weighted by the classes' images", True, _weighted(lambda r: r.f1)),
    Metric(
        "average_precision",
        "Average precision of each class against the others, mean over the classes that have images (mAP)",
        True,
        lambda results: _mean(results.average_precision),
        ranks=True,
    ),
    Metric(
        "auroc",
        "Area under the ROC curve of each class against the others, mean over the classes that have images",
        True,
        lambda results: _mean(results.auroc),
        ranks=True,
    ),
    Metric(
        "ece",
        "Expected calibration error, in 15 bins of probability: of the answer, or with several labels of each label",
        False,
        lambda results: results.ece,
    ),
)


def metrics_of(results: Results, topk: int) -> dict[str, float]:
    """Return the metrics by their names in the log, and the number of `images`; without those that need a ranking
    that was not made.
    """
    values = {
        metric.key(topk): metric.value(results)
        for metric in METRICS.values()
        if results.is_ranked or not metric.ranks
    }
    return {**values, "images": float(results.images)}
