"""PyTorch's logits, or features, which those of an exported file must equal."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from effnet.data.preprocessing import Preprocessing
from effnet.export.features import FeatureExtractor
from effnet.export.graph import Probabilities
from effnet.models.efficientnet import EfficientNet
from effnet.recipe.choices import DecodeName, FeaturesName
from effnet.runtime.errors import UserError
from effnet.training.step import Normalise
from effnet.weights import WeightsMetadata

Precision = Literal["fp32", "fp16"]

CHECKED_BATCHES = (1, 3, 8)
# Largest difference of a logit to PyTorch's that rounding can explain.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.1}
# The same for a quantized model, as a share of the largest logit.
QUANTIZED_TOLERANCE = 0.2
# Of a probability to the one that PyTorch computes from the same logits.
PROBABILITY_TOLERANCE = 1e-4


def example_images(preprocessing: Preprocessing, batch_size: int, takes_bytes: bool) -> Tensor:
    """Return images of random pixels: uint8 (N, H, W, 3), or the same normalised, float32 (N, 3, H, W)."""
    side = preprocessing.image_size
    random = torch.Generator().manual_seed(batch_size)
    pixels = torch.randint(0, 256, (batch_size, side, side, 3), dtype=torch.uint8, generator=random)
    return pixels if takes_bytes else Normalise(preprocessing)(pixels.permute(0, 3, 1, 2)).contiguous()


class Reference:
    """PyTorch's logits for batches of random images.

    Attributes:
        batches: sizes of the batches.
        sizes: (height, width) of the images, where they are whole ones; see `effnet.export.whole`.

    Args:
        model: takes normalised images, returns logits; not changed.
        preprocessing: size and normalisation of the images.
        batch_size: the only batch size that the file takes; None if it takes any.
        device: device of PyTorch's computation.
        features: compare these in place of the logits.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        *,
        batch_size: int | None = None,
        device: torch.device | str = "cpu",
        features: FeaturesName | None = None,
    ) -> None:
        self.sizes: tuple[tuple[int, int], ...] = ()
        self.batches: tuple[int, ...] = CHECKED_BATCHES if batch_size is None else (batch_size,)
        self._is_quantized = isinstance(model, EfficientNet) and model.config.quantized
        self._preprocessing, self._device = preprocessing, device
        network = copy.deepcopy(model).eval().to(device)
        self._network = FeatureExtractor(network, features) if features else network
        self._known: dict[int, npt.NDArray[np.float32]] = {}

    def _logits(self, size: int) -> npt.NDArray[np.float32]:
        """Return logits (size, classes), computed once."""
        if size not in self._known:
            images = example_images(self._preprocessing, size, takes_bytes=False)
            with torch.inference_mode():
                self._known[size] = self._network(images.to(self._device)).float().cpu().numpy()
        return self._known[size]

    def tolerance(self, precision: Precision) -> float:
        """Return the largest difference of a logit to PyTorch's that rounding can explain.

        For a quantized model it is a share of the largest logit: sums halfway between two levels are rounded up in one
        program and down in the other, and these steps accumulate. A wrong graph differs by more than the logits'
        own size.
        """
        if not self._is_quantized:
            return TOLERANCES[precision]
        return QUANTIZED_TOLERANCE * float(np.abs(self._logits(max(CHECKED_BATCHES))).max())

    def difference(
        self, run: Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]], *, takes_bytes: bool
    ) -> float:
        """Return the largest absolute difference of an engine's logits to PyTorch's.

        Args:
            run: the engine: images in, logits out.
            takes_bytes: it takes uint8 (N, H, W, 3) in place of the model's input.
        """
        differences = [
            np.abs(
                run(example_images(self._preprocessing, size, takes_bytes).numpy()) - self._logits(size)
            ).max()
            for size in self.batches
        ]
        return float(np.max(differences))  # NaN, which Python's `max` may drop, stays and is refused


def reference_for(
    model: nn.Module,
    metadata: WeightsMetadata,
    decode: DecodeName,
    *,
    batch_size: int | None,
    device: torch.device | str,
    features: FeaturesName | None = None,
) -> Reference:
    """Return what a file's logits are compared with: `Reference`, or a `WholeReference` for a file that resizes."""
    preprocessing = Preprocessing.from_dict(metadata.preprocessing)
    if decode == "none":
        return Reference(model, preprocessing, batch_size=batch_size, device=device, features=features)
    from effnet.export.whole import WholeReference  # which needs this module

    return WholeReference(
        model,
        preprocessing,
        batch_size=batch_size,
        device=device,
        encoded=decode == "jpeg",
        features=features,
    )


def checked_answers(
    answers: Sequence[npt.NDArray[np.float32]], metadata: WeightsMetadata, path: Path
) -> npt.NDArray[np.float32]:
    """Return a file's logits.

    Args:
        answers: the logits (N, classes), and the probabilities if the file returns them.
        metadata: of the model.
        path: the file, for the error.

    Raises:
        UserError: the probabilities are not those of the logits.
    """
    logits, *further = answers
    for probabilities in further:
        wanted = Probabilities(metadata)(torch.from_numpy(np.array(logits))).numpy()
        difference = float(np.abs(probabilities - wanted).max())
        if not difference <= PROBABILITY_TOLERANCE:
            raise UserError(
                f"{path}: not written, its probabilities differ from those of its logits by {difference:.2g}"
            )
    return logits


def check_difference(path: Path, difference: float, tolerance: float) -> None:
    """Refuse a file whose logits are not PyTorch's.

    Raises:
        UserError: the difference is above the tolerance; the file is named.
    """
    if not difference <= tolerance:
        raise UserError(
            f"{path}: not written, its logits differ from PyTorch's by {difference:.2g}, more than {tolerance:g}"
        )
