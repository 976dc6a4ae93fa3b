"""Confidence of a model, fitted on the answers of its validation: the temperature (arXiv 1706.04599), and more."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from effnet.data import Batch
from effnet.runtime.processes import Processes
from effnet.training.bins import ConfidenceBins
from effnet.training.unknown import Ask, ImageSample, choose_rule
from effnet.weights.confidence import COLDEST, HOTTEST, Confidence

MOST_LOGITS = 8_000_000
"""logits that are kept of a validation; of a larger set every second, third, ... image is"""
FEWEST_IMAGES = 20
"""images below which nothing is fitted"""
_AT_ONCE = 1 << 20  # logits in float64
_MOST_STEPS = 60
_PRECISION = 1e-8
_DIGITS = 6


class AnswerSample:
    """Logits of a validation, or of evenly spaced images of a large one; an observer of `Validator`.

    The images that are kept are the same for any number of processes and any batch.

    Args:
        num_images: images of the set over all processes.
        num_classes: logits of each.

    Attributes:
        images: some of the images themselves.
    """

    def __init__(self, num_images: int, num_classes: int) -> None:
        self._spacing = max(1, -(-num_images * num_classes // MOST_LOGITS))
        self._seen = 0
        self._positions: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._targets: list[Tensor] = []
        self.images = ImageSample(num_images)

    def __call__(self, batch: Batch, logits: Tensor) -> None:
        """Keep a batch's answers; of a model with several labels for an image, none."""
        if batch.targets.ndim != 1:
            return
        positions = batch.indices
        if positions is None:
            positions = torch.arange(self._seen, self._seen + len(logits))
        self._seen += len(logits)
        self.images.add(positions, batch.images)
        kept = (positions % self._spacing == 0).nonzero().flatten()
        rows = kept.to(logits.device)
        self._positions.append(positions[kept] // self._spacing)
        self._logits.append(logits[rows])
        self._targets.append(batch.targets[rows])

    def answers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits float32 (N, classes), targets int64 (N,) and positions int64 (N,) on the CPU.

        Images whose logits are not finite are left out.
        """
        if not self._logits:
            return torch.empty(0, 1), torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        logits, targets = torch.cat(self._logits), torch.cat(self._targets)
        positions = torch.cat(self._positions)
        finite = logits.isfinite().all(1)
        return logits[finite], targets[finite], positions[finite.cpu()]


@dataclass(frozen=True)
class Fitted:
    """Confidence fitted to a validation.

    Attributes:
        confidence: what was fitted.
        metrics: `temperature`, and `calibrated_loss` and `calibrated_ece`: mean cross entropy and expected calibration
            error with temperature. The last two are of each half of the images with the other half's temperature, so
            that no image is judged by what was fitted to it.
    """

    confidence: Confidence
    metrics: dict[str, float]


def fit_confidence(sample: AnswerSample, ask: Ask, keep: float, processes: Processes) -> Fitted | None:
    """Fit temperature and rule for unknown images to the answers of a validation; all processes get the same.

    Args:
        sample: this process's answers.
        ask: returns the model's logits for images.
        keep: share of the validation images that the rule lets be known.
        processes: the processes that shared the validation set.

    Returns:
        None for fewer than `FEWEST_IMAGES` images.
    """
    logits, targets, positions = sample.answers()
    device = processes.device
    counts = torch.tensor([len(targets), int((positions % 2).sum())], dtype=torch.float64, device=device)
    total, odd = processes.sum(counts).tolist()
    if total < FEWEST_IMAGES or not 0 < odd < total:
        return None
    temperature = fit_temperature(logits, targets, processes)
    rule = choose_rule(logits, temperature, sample.images, ask, keep, processes)
    return Fitted(
        Confidence(temperature, rule),
        {
            "temperature": temperature,
            **_cross_fitted(logits, targets, positions.to(logits.device) % 2, processes),
        },
    )


def _cross_fitted(logits: Tensor, targets: Tensor, half: Tensor, processes: Processes) -> dict[str, float]:
    """Return loss and calibration error of each half of the images with the other half's temperature."""
    calibrated = Calibrated(processes)
    for number in (0, 1):
        others, own = half != number, half == number
        temperature = fit_temperature(logits[others], targets[others], processes)
        calibrated.add(logits[own] / temperature, targets[own])
    return calibrated.metrics()


class Calibrated:
    """Loss and calibration error of logits that are divided by a temperature; an observer of `Validator`.

    Args:
        processes: the processes that share the images.
        temperature: divisor of the logits.
    """

    def __init__(self, processes: Processes, temperature: float = 1.0) -> None:
        self.temperature = temperature
        self._processes = processes
        self._bins = ConfidenceBins(processes.device)
        self._sums = torch.zeros(2, dtype=torch.float64, device=processes.device)

    def __call__(self, batch: Batch, logits: Tensor) -> None:
        """Count a batch; of a model with several labels for an image, nothing."""
        if batch.targets.ndim == 1:
            self.add(logits, batch.targets)

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Count logits (N, classes) with their targets (N,); does not wait for the device."""
        logits = logits / self.temperature
        self._bins.add(logits.softmax(1), targets)
        loss = F.cross_entropy(logits, targets, reduction="sum").double()
        self._sums += torch.stack([loss, torch.full_like(loss, len(logits))])

    def metrics(self) -> dict[str, float]:
        """Return `calibrated_loss` and `calibrated_ece` over the images of all processes; nothing without images."""
        loss, images = self._processes.sum(self._sums).tolist()
        error = self._bins.sum_over(self._processes).expected_calibration_error
        return {"calibrated_loss": loss / images, "calibrated_ece": error} if images else {}


def fit_temperature(logits: Tensor, targets: Tensor, processes: Processes) -> float:
    """Return the temperature with the lowest mean cross entropy, by Newton's method in float64.

    The targets are smoothed by one image's share, 1 / (images + 1), without which the answers to a set that are all
    right would have no best temperature (Platt 1999).

    Args:
        logits: float32 (N, classes) of this process; N may be 0.
        targets: int64 (N,).
        processes: the processes that have the other images.
    """
    images = processes.sum(torch.tensor(float(len(targets)), dtype=torch.float64, device=logits.device))
    smoothing = 1 / (float(images) + 1)
    low, high = 1 / HOTTEST, 1 / COLDEST
    factor = 1.0  # of the logits, in which the loss is convex
    for _ in range(_MOST_STEPS):
        slope, curvature = processes.sum(_derivatives(logits, targets, factor, smoothing)).tolist()
        if curvature <= 0:  # each image has the same logit for all classes
            break
        low, high = (low, factor) if slope > 0 else (factor, high)
        proposed = factor - slope / curvature
        after = proposed if low < proposed < high else (low * high) ** 0.5
        if abs(after - factor) <= _PRECISION * factor:
            break
        factor = after
    return float(f"{1 / factor:.{_DIGITS}g}")


def _derivatives(logits: Tensor, targets: Tensor, factor: float, smoothing: float) -> Tensor:
    """Return first and second derivative of the summed cross entropy by the logits' factor, float64 (2,)."""
    sums = torch.zeros(2, dtype=torch.float64, device=logits.device)
    rows = max(1, _AT_ONCE // max(1, logits.shape[1]))
    for part, right in zip(logits.split(rows), targets.split(rows), strict=True):
        values = part.double()
        values = values - values.amax(1, keepdim=True)
        probabilities = (factor * values).softmax(1)
        mean = (probabilities * values).sum(1)
        wanted = (1 - smoothing) * values.gather(1, right[:, None])[:, 0] + smoothing * values.mean(1)
        variance = (probabilities * values.square()).sum(1) - mean.square()
        sums += torch.stack([(mean - wanted).sum(), variance.sum()])
    return sums
