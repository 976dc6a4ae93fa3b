"""Confidence against accuracy in bins: the expected calibration error and what a reliability diagram shows."""

import torch
from torch import Tensor

from effnet.runtime.processes import Processes

BINS = 15


class ConfidenceBins:
    """Images in bins of the probability of their predicted class (arXiv 1706.04599).

    The bins are those of torchmetrics: `BINS` of equal width over [0, 1), and one for a probability of exactly 1.

    Args:
        device: device of the answers.
    """

    def __init__(self, device: torch.device) -> None:
        self.edges = torch.linspace(0, 1, BINS + 1, device=device)
        self._sums = torch.zeros(3, BINS + 1, dtype=torch.float64, device=device)

    def add(self, probabilities: Tensor, targets: Tensor) -> None:
        """Count images; does not wait for the device. One whose probabilities are not finite is left out.

        Args:
            probabilities: float32 (N, classes).
            targets: int64 (N,).
        """
        confidences, predicted = probabilities.max(1)
        is_finite = confidences.isfinite()
        bins = torch.bucketize(confidences, self.edges, right=True).sub(1).clamp(0, BINS)
        values = torch.stack(
            [is_finite.double(), confidences.double().where(is_finite, 0.0), (predicted == targets).double()]
        )
        self._sums.index_add_(1, bins, values * is_finite)

    def sum_over(self, processes: Processes) -> "ConfidenceBins":
        """Sum the counts over all processes, and return self."""
        processes.sum(self._sums)
        return self

    @property
    def rows(self) -> list[tuple[float, float, float]]:
        """Images, sum of their confidences, and right answers of each bin."""
        images, confidences, right = self._sums.tolist()
        return list(zip(images, confidences, right, strict=True))

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance between confidence and accuracy over the bins, weighted by their images; NaN without any."""
        images, confidences, right = self._sums
        return float((confidences - right).abs().sum() / images.sum())
