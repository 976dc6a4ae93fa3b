"""Calibration error and detection of unknown images of a trained run, on images that it has not seen."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from effnet.data.decode import BadImageError
from effnet.inference.classifier import Classifier, load
from effnet.inference.images import named_images
from effnet.runtime.errors import UserError
from effnet.training.bins import ConfidenceBins
from effnet.training.unknown import SCORE_FUNCTIONS, auroc
from effnet.weights.confidence import Confidence

_NOISE = 60.0  # standard deviation, of 0 to 255


def measure(model: Path, known: Path, unknown: list[Path]) -> dict[str, float | str]:
    """Return figures of a model.

    Args:
        model: checkpoint or run's folder.
        known: folder of class folders with images that neither trained nor chose anything.
        unknown: folders of images of none of the classes.

    Raises:
        UserError: the weights have no confidence, or a folder has no image.
    """
    classifier = load(model)
    confidence = classifier.engine.metadata.confidence
    if confidence is None or confidence.unknown is None:
        raise UserError(f"{model}: its weights have no confidence; train with --calibrate-confidence")
    pixels, names = _images(classifier, known)
    targets = torch.tensor([classifier.classes.index(Path(name).parent.name) for name in names])
    logits = _logits(classifier, pixels)
    random = np.random.default_rng(0)
    corrupted = [
        (each + random.normal(0, _NOISE, each.shape)).clip(0, 255).astype(np.uint8) for each in pixels
    ]
    noise = [random.integers(0, 256, each.shape, dtype=np.uint8) for each in pixels]
    others = {folder.name: _logits(classifier, _images(classifier, folder)[0]) for folder in unknown}
    others |= {"gaussian": _logits(classifier, corrupted), "noise": _logits(classifier, noise)}
    return {
        "images": len(targets),
        "top1": 100 * float((logits.argmax(1) == targets).double().mean()),
        "temperature": confidence.temperature,
        "ece_before": _error(logits, targets),
        "ece_after": _error(logits / confidence.temperature, targets),
        "score": confidence.unknown.score,
        **_detection(logits, others, confidence),
    }


def _images(classifier: Classifier, folder: Path) -> tuple[list[np.ndarray], list[str]]:
    pixels, names = [], []
    for image in named_images(folder):
        found = classifier.prepare(image)
        if not isinstance(found, BadImageError):
            pixels.append(np.asarray(found))
            names.append(image.name)
    if not pixels:
        raise UserError(f"{folder}: holds no image")
    return pixels, names


def _logits(classifier: Classifier, pixels: list[np.ndarray]) -> Tensor:
    return torch.cat(list(_parts(classifier, pixels)))


def _parts(classifier: Classifier, pixels: list[np.ndarray]) -> Iterator[Tensor]:
    for first in range(0, len(pixels), 32):
        yield classifier.engine.logits(np.stack(pixels[first : first + 32])).cpu()


def _error(logits: Tensor, targets: Tensor) -> float:
    bins = ConfidenceBins(logits.device)
    bins.add(logits.softmax(1), targets)
    return bins.expected_calibration_error


def _detection(known: Tensor, others: dict[str, Tensor], confidence: Confidence) -> dict[str, float]:
    """Return the share of known images kept, and for each kind of others the AUROC and the share that is found."""
    rule = confidence.unknown
    assert rule is not None
    score = SCORE_FUNCTIONS[rule.score]
    values = score(known, confidence.temperature)
    figures = {"known_kept": float((values >= rule.threshold).double().mean())}
    for name, logits in others.items():
        found = score(logits, confidence.temperature)
        figures[f"auroc_{name}"] = auroc(values, found)
        figures[f"found_{name}"] = float((found < rule.threshold).double().mean())
    return figures
