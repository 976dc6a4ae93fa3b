"""Validation metrics, one row each.

A new one is a row of `METRICS` and its name in `effnet.recipe.choices.MetricName`: validation then measures it, and
``--best-metric`` offers it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from effnet.recipe.choices import MetricName
from effnet.runtime.registry import registry


@dataclass(frozen=True)
class Answers:
    """A model's answers for a batch of images.

    Attributes:
        logits: float32 (N, num_classes).
        targets: int64 (N,).
        topk: K of the top-K accuracy; one above num_classes counts as num_classes.
    """

    logits: Tensor
    targets: Tensor
    topk: int

    @cached_property
    def are_finite(self) -> Tensor:
        """Bool (N,): True where all logits of an image are finite; otherwise the answer is wrong."""
        return self.logits.isfinite().all(dim=1)

    @cached_property
    def hits(self) -> Tensor:
        """Bool (N, K): True where the k-th largest logit is the image's class."""
        best = self.logits.topk(min(self.topk, self.logits.shape[1]), dim=1).indices
        return (best == self.targets[:, None]) & self.are_finite[:, None]


@dataclass(frozen=True)
class Metric:
    """A metric of a validation set: a mean over its images.

    Attributes:
        name: value of ``--best-metric``, and its name in the log unless `name_of` says otherwise.
        summary: the metric and its unit, for the documentation's table.
        higher_is_better: False for losses.
        total: returns the sum over a batch's images, a scalar on their device.
        scale: times the mean, 100 for percent.
        name_of: returns the name in the log from the setting ``--topk``.
    """

    name: str
    summary: str
    higher_is_better: bool
    total: Callable[[Answers], Tensor]
    scale: float = 1.0
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


def _cross_entropy(answers: Answers) -> Tensor:
    # A logit of minus infinity in another class would go unnoticed.
    total = F.cross_entropy(answers.logits, answers.targets, reduction="sum")
    return torch.where(answers.are_finite.all(), total, math.nan)


METRICS = registry(
    MetricName,
    Metric("loss", "Mean cross entropy, without label smoothing", False, _cross_entropy),
    Metric(
        "top1",
        "Images with their class at the largest logit, in percent",
        True,
        lambda answers: answers.hits[:, :1].sum(),
        scale=100.0,
    ),
    Metric(
        "topk",
        "Images with their class among the K largest logits of `--topk`, in percent; logged as `top5` for 5",
        True,
        lambda answers: answers.hits.sum(),
        scale=100.0,
        name_of=lambda topk: f"top{topk}",
    ),
)
