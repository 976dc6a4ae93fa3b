"""PyTorch's logits, which those of an exported file have to equal."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from effnet.data.preprocessing import Preprocessing
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError
from effnet.training.step import Normalise

Precision = Literal["fp32", "fp16"]

CHECKED_BATCHES = (1, 3, 8)
# Largest difference of a logit to PyTorch's in FP32 that is taken for rounding.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.1}
# The same of a quantized model, as a share of the largest logit.
QUANTIZED_TOLERANCE = 0.2


def example_images(preprocessing: Preprocessing, batch_size: int, takes_bytes: bool) -> Tensor:
    """Images of random pixels: uint8 (N, H, W, 3), or the same normalised, float32 (N, 3, H, W)."""
    side = preprocessing.image_size
    random = torch.Generator().manual_seed(batch_size)
    pixels = torch.randint(0, 256, (batch_size, side, side, 3), dtype=torch.uint8, generator=random)
    return pixels if takes_bytes else Normalise(preprocessing)(pixels.permute(0, 3, 1, 2)).contiguous()


class Reference:
    """What PyTorch makes of batches of random images.

    Attributes:
        batches: sizes of the batches.

    Args:
        model: takes normalised images, gives logits; left as it is.
        preprocessing: size and normalisation of the images.
        batch_size: the one size of batch that the file takes; None if it takes any.
        device: where PyTorch computes.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        *,
        batch_size: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batches = CHECKED_BATCHES if batch_size is None else (batch_size,)
        self._is_quantized = isinstance(model, EfficientNet) and model.config.quantized
        self._preprocessing, self._device = preprocessing, device
        self._network = copy.deepcopy(model).eval().to(device)
        self._known: dict[int, npt.NDArray[np.float32]] = {}

    def _logits(self, size: int) -> npt.NDArray[np.float32]:
        """(size, classes), computed once."""
        if size not in self._known:
            images = example_images(self._preprocessing, size, takes_bytes=False)
            with torch.inference_mode():
                self._known[size] = self._network(images.to(self._device)).float().cpu().numpy()
        return self._known[size]

    def tolerance(self, precision: Precision) -> float:
        """Largest difference of a logit to PyTorch's that is taken for rounding.

        Of a quantized model it is a share of the largest logit: sums that fall halfway between two levels are rounded
        up here and down there, and the steps add up on the way to the logits; a graph that computes something else is
        off by more than they are large.
        """
        if not self._is_quantized:
            return TOLERANCES[precision]
        return QUANTIZED_TOLERANCE * float(np.abs(self._logits(max(CHECKED_BATCHES))).max())

    def difference(
        self, run: Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]], *, takes_bytes: bool
    ) -> float:
        """How far an engine's logits are from PyTorch's at most.

        Args:
            run: the engine: images in, logits out.
            takes_bytes: whether it takes uint8 (N, H, W, 3), not what the model does.
        """
        differences = [
            np.abs(
                run(example_images(self._preprocessing, size, takes_bytes).numpy()) - self._logits(size)
            ).max()
            for size in self.batches
        ]
        return float(np.max(differences))  # NaN, which Python's `max` may drop, stays and is refused


def check_difference(path: Path, difference: float, tolerance: float) -> None:
    """Refuse a file whose logits are not PyTorch's.

    Raises:
        UserError: naming the file.
    """
    if not difference <= tolerance:
        raise UserError(
            f"{path}: not written, its logits differ from PyTorch's by {difference:.2g}, more than {tolerance:g}"
        )
