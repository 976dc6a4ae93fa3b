"""A model's answers, and their sums over a validation set and over processes."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from effnet.data.mixup import multi_hot
from effnet.runtime.processes import Processes
from effnet.training.bins import SLOTS, in_bins
from effnet.training.ranking import Scores
from effnet.training.results import Results


@dataclass(frozen=True)
class Answers:
    """A model's answers for a batch of images.

    Attributes:
        logits: float32 (N, C).
        targets: int64 (N,), or with several labels float32 (N, C).
        topk: K of the top-K accuracy; one above C counts as C.
        thresholds: float32 (C,), probabilities from which on a label is predicted; None for images with one label.
    """

    logits: Tensor
    targets: Tensor
    topk: int
    thresholds: Tensor | None = None

    @cached_property
    def are_finite(self) -> Tensor:
        """Bool (N,): True where all logits of an image are finite; otherwise the answer is wrong."""
        return self.logits.isfinite().all(dim=1)

    @cached_property
    def hits(self) -> Tensor:
        """Bool (N, K): True where the k-th largest logit is of a label of the image."""
        best = self.logits.topk(min(self.topk, self.logits.shape[1]), dim=1).indices
        own = best == self.targets[:, None] if self.targets.ndim == 1 else self.targets.gather(1, best) > 0
        return own & self.are_finite[:, None]

    @cached_property
    def probabilities(self) -> Tensor:
        """float32 (N, C)."""
        return self.logits.softmax(1) if self.thresholds is None else self.logits.sigmoid()

    def loss(self) -> Tensor:
        """Return the sum of the images' losses; NaN if an answer is not finite."""
        if self.thresholds is None:
            total = F.cross_entropy(self.logits, self.targets, reduction="sum")
        else:
            each = F.binary_cross_entropy_with_logits(self.logits, self.targets, reduction="sum")
            total = each / self.logits.shape[1]
        # A logit of minus infinity in another class would go unnoticed.
        return torch.where(self.are_finite.all(), total, math.nan)

    def by_class(self) -> Tensor:
        """Return int64 (3, C): images of a class for which it is predicted, all for which it is, and all of it."""
        classes = self.logits.shape[1]
        if self.thresholds is None:
            # One more class, for images with answers that are not finite, for which none is predicted.
            chosen = self.logits.argmax(1).where(self.are_finite, classes)
            right = self.targets.where(chosen == self.targets, classes)
            counts = [
                torch.bincount(each, minlength=classes + 1)[:classes]
                for each in (right, chosen, self.targets)
            ]
            return torch.stack(counts)
        predicted = (self.probabilities >= self.thresholds) & self.are_finite[:, None]
        own = self.targets > 0
        return torch.stack([(predicted & own).sum(0), predicted.sum(0), own.sum(0)])

    def calibration(self) -> Tensor:
        """Return float64 (2, bins): sums of probabilities and of right answers, by the probability."""
        if self.thresholds is None:
            sure, chosen = self.probabilities.max(1)
            right = chosen == self.targets
        else:
            sure, right = self.probabilities.flatten(), self.targets.flatten() > 0
        return in_bins(sure, right)[1:]


class Sums:
    """Sums over a validation set; adding to them does not wait for the device.

    Args:
        device: the device of the answers.
        num_classes: logits of the model.
        scores: collects the answers for a ranking; None for none.
    """

    def __init__(self, device: torch.device, num_classes: int, scores: Scores | None = None) -> None:
        self._images = 0
        self._totals = torch.zeros(4, dtype=torch.float64, device=device)
        self._bins = torch.zeros((2, SLOTS), dtype=torch.float64, device=device)
        self._counts = torch.zeros((3, num_classes), dtype=torch.int64, device=device)
        self._scores = scores

    def add(self, answers: Answers) -> None:
        """Add a batch."""
        self._images += len(answers.targets)
        hits = answers.hits
        bad = (~answers.are_finite).sum()
        self._totals += torch.stack([answers.loss(), hits[:, 0].sum(), hits.any(1).sum(), bad]).double()
        self._bins += answers.calibration()
        self._counts += answers.by_class()
        if self._scores is not None:
            self._scores.add(answers.probabilities, multi_hot(answers.targets, answers.logits.shape[1]) > 0)

    def results(self, processes: Processes, thresholds: Tensor | None = None) -> Results:
        """Return the results over the images of all processes; every process must call this.

        Args:
            processes: the processes that share the set.
            thresholds: those of the answers.
        """
        several_labels = thresholds is not None
        count = self._totals.new_tensor([self._images])
        parts = [self._totals, count, self._bins.flatten(), self._counts.flatten().double()]
        total = processes.sum(torch.cat(parts)).cpu()
        loss, top1, topk, bad, images = total[:5].tolist()
        sure, right = total[5 : 5 + 2 * SLOTS].view(2, SLOTS)
        counts = total[5 + 2 * SLOTS :].view(3, -1).numpy()
        answers = images * (counts.shape[1] if several_labels else 1)
        ranked = self._scores.ranked(processes) if self._scores is not None else {}
        if bad:  # there is no order among what is not finite
            ranked = {
                name: values * math.nan for name, values in ranked.items() if name != "chosen_thresholds"
            }
        return Results(
            images=int(images),
            loss=loss / images,
            top1=100 * top1 / images,
            topk=100 * topk / images,
            ece=math.nan if bad else float((sure - right).abs().sum()) / answers,
            right=counts[0],
            predicted=counts[1],
            actual=counts[2],
            several_labels=several_labels,
            thresholds=None if thresholds is None else thresholds.cpu().numpy(),
            **ranked,
        )
