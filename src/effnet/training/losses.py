"""Losses, one row each: what a training lowers, from logits and targets to a number.

A new one is a row of `LOSSES` and its name in `effnet.recipe.choices.LossName`.

Each has a form for one label per image and one for several, where each class is a question of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from effnet.data.mixup import multi_hot
from effnet.recipe.choices import LossName
from effnet.runtime.registry import registry


class Loss(nn.Module):
    """A loss with the weights and shares of the classes.

    Args:
        smoothing: share of the target spread evenly over all classes (arXiv 1512.00567), or with several labels over
            yes and no.
        gamma: power of the focal loss (arXiv 1708.02002).
        weights: float32 (C,), weight of each class, or with several labels of its positive answers; None for 1.
        offsets: float32 (C,), added to the logits (logit adjustment, arXiv 2007.07314); None for 0.
    """

    weights: Tensor | None
    offsets: Tensor | None

    def __init__(
        self,
        *,
        smoothing: float = 0.0,
        gamma: float = 0.0,
        weights: Tensor | None = None,
        offsets: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.smoothing, self.gamma = smoothing, gamma
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("offsets", offsets, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss of a batch.

        Args:
            logits: float32 (N, C).
            targets: class indices int64 (N,), or float32 (N, C): probabilities, or with several labels 1 for each
                label of an image and 0 for the others, or a mixture of such.
            weights: float32 (N,), how much each image counts; None for 1.

        Returns:
            A scalar: the mean over the images, of each image's loss times its weight.
        """
        return self.of(logits if self.offsets is None else logits + self.offsets, targets, weights)

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Return the loss of adjusted logits; see `forward`."""
        raise NotImplementedError


class CrossEntropy(Loss):
    """Cross entropy, as PyTorch defines it: with class weights and class indices, the mean is a weighted one."""

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """See `Loss`."""
        if weights is None:
            return F.cross_entropy(logits, targets, weight=self.weights, label_smoothing=self.smoothing)
        each = F.cross_entropy(
            logits, targets, weight=self.weights, label_smoothing=self.smoothing, reduction="none"
        )
        is_plain = self.weights is None or targets.is_floating_point()
        counted = len(targets) if is_plain else self.weights[targets].sum()  # type: ignore[index]
        return (each * weights).sum() / counted


class Focal(Loss):
    """Focal loss over the classes: each term of cross entropy times (1 - p) to the power of gamma."""

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """See `Loss`."""
        log_p = logits.log_softmax(1)
        shares = targets if targets.is_floating_point() else F.one_hot(targets, logits.shape[1]).to(log_p)
        shares = shares * (1 - self.smoothing) + self.smoothing / logits.shape[1]
        if self.weights is not None:
            shares = shares * self.weights
        each = -(shares * (1 - log_p.exp()) ** self.gamma * log_p).sum(1)
        return (each if weights is None else each * weights).mean()


class BinaryCrossEntropy(Loss):
    """Cross entropy of each class's answer, yes or no; the mean over images and classes."""

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """See `Loss`."""
        return F.binary_cross_entropy_with_logits(
            logits,
            _answers(targets, logits, self.smoothing),
            weight=None if weights is None else weights[:, None],
            pos_weight=self.weights,
        )


class BinaryFocal(Loss):
    """Focal loss of each class's answer, yes or no; the mean over images and classes."""

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """See `Loss`."""
        yes = _answers(targets, logits, self.smoothing)
        each = F.binary_cross_entropy_with_logits(logits, yes, pos_weight=self.weights, reduction="none")
        p = logits.sigmoid()
        each = each * (p + yes - 2 * p * yes) ** self.gamma
        return (each if weights is None else each * weights[:, None]).mean()


def _answers(targets: Tensor, logits: Tensor, smoothing: float) -> Tensor:
    """Return the probability that each class's answer is yes, (N, C)."""
    yes = multi_hot(targets, logits.shape[1])
    return yes * (1 - smoothing) + smoothing / 2 if smoothing else yes


@dataclass(frozen=True)
class LossRow:
    """A loss.

    Attributes:
        name: value of ``--loss``.
        summary: what it is, for the documentation's table.
        single: makes it for images with one label.
        multi: makes it for images with several labels.
        has_gamma: True if ``--focal-gamma`` is its power.
    """

    name: str
    summary: str
    single: Callable[..., Loss]
    multi: Callable[..., Loss]
    has_gamma: bool = False


LOSSES = registry(
    LossName,
    LossRow(
        "cross-entropy",
        "Cross entropy over the classes; with several labels the binary one of each class",
        CrossEntropy,
        BinaryCrossEntropy,
    ),
    LossRow(
        "focal",
        "The same, where an image that is already right counts little (arXiv 1708.02002)",
        Focal,
        BinaryFocal,
        has_gamma=True,
    ),
)
