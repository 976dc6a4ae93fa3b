"""Confidence against accuracy in bins: the expected calibration error and what a reliability diagram shows."""

import torch
from torch import Tensor

from effnet.runtime.processes import Processes

BINS = 15
SLOTS = BINS + 1
"""bins as torchmetrics has them: `BINS` of equal width over [0, 1), and one for a probability of exactly 1"""


def in_bins(confidences: Tensor, right: Tensor) -> Tensor:
    """Return answers counted by their confidence; does not wait for the device.

    Args:
        confidences: float32 (N,), in [0, 1]. An answer whose confidence is not finite is left out.
        right: bool (N,), True for an answer that is right.

    Returns:
        float64 (3, SLOTS): answers, sum of their confidences, and right answers of each bin.
    """
    is_finite = confidences.isfinite()
    edges = torch.linspace(0, 1, BINS + 1, device=confidences.device)
    slots = torch.bucketize(confidences, edges, right=True) - 1
    # No sum by index, which a GPU would add up in any order.
    is_in = (slots[:, None] == torch.arange(SLOTS, device=slots.device)) & is_finite[:, None]
    values = [is_finite.double(), confidences.double().where(is_finite, 0.0), right.double()]
    return torch.stack(values) @ is_in.double()


class ConfidenceBins:
    """Images in bins of the probability of their predicted class (arXiv 1706.04599); see `in_bins`.

    Args:
        device: device of the answers.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, SLOTS, dtype=torch.float64, device=device)

    def add(self, probabilities: Tensor, targets: Tensor) -> None:
        """Count images; does not wait for the device. One whose probabilities are not finite is left out.

        Args:
            probabilities: float32 (N, classes).
            targets: int64 (N,).
        """
        confidences, predicted = probabilities.max(1)
        self._sums += in_bins(confidences, predicted == targets)

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
