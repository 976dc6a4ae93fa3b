"""The interface of every engine: a network that is called like a PyTorch module."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from effnet.data.preprocessing import Preprocessing
from effnet.recipe.choices import DecodeName
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata


class Network(nn.Module):
    """A model on an engine: images in, logits out, float32 (N, classes) on `device`.

    Attributes:
        metadata: the model's classes and preprocessing.
        device: the device that it expects images on.
        takes_bytes: images are RGB bytes (N, S, S, 3), which it normalises itself; otherwise they are normalised,
            float32 (N, 3, S, S).
        decode: unless ``none``, it resizes and crops images itself, which are bytes of any height and width.
        precision: its arithmetic: `fp32`, `fp16`, `bf16`, `tf32`, or `int8` with the rest in floating point.
    """

    is_channels_last = False
    """float images are best given channels-last in memory"""
    compiles_each_size = False
    """each size of a batch is compiled when it first comes, which takes seconds"""
    batch_size: int | None = None
    """the one size of its batches, into which images are divided; None for any"""
    features: Callable[[], AbstractContextManager[list[Tensor]]] | None = None
    """in its block, each call appends the pooled features (N, C) to the list; None where only logits can be had"""

    def __init__(
        self,
        metadata: WeightsMetadata,
        device: torch.device | None = None,
        *,
        takes_bytes: bool = False,
        precision: str = "fp32",
        decode: DecodeName = "none",
    ) -> None:
        super().__init__()
        self.metadata = metadata
        self.device = device or torch.device("cpu")
        self.takes_bytes = takes_bytes
        self.precision = precision
        self.decode = decode
        self.eval()

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of images before the network.

        Of one that resizes them itself, it is the centre square of the resized image, which the network leaves as large
        as it is: batches have one size.
        """
        own = Preprocessing.from_dict(self.metadata.preprocessing)
        return replace(own, image_size=own.resize) if self.resizes else own

    @property
    def resizes(self) -> bool:
        """True if it takes images of any height and width."""
        return self.decode != "none"

    def differentiable(self) -> nn.Module | None:
        """Return the model as a PyTorch module whose outputs have gradients; None where only logits can be had."""
        return None


def as_array(images: Tensor) -> npt.NDArray[np.generic]:
    """Return images as engines outside PyTorch take them: a contiguous array."""
    array: npt.NDArray[np.generic] = images.contiguous().cpu().numpy()
    return array


def encoded_png(image: Tensor) -> npt.NDArray[np.uint8]:
    """Return an image uint8 (H, W, 3) as the bytes of a PNG file, uint8 (bytes,), for engines that decode files."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.cpu().numpy())).save(file, "PNG", compress_level=1)
    return np.frombuffer(file.getvalue(), dtype=np.uint8)


def checked_logits(logits: npt.NDArray[np.generic], images: int, path: Path) -> Tensor:
    """Return an engine's answer as a tensor.

    Args:
        logits: what it returned.
        images: images that it was given.
        path: the file that it runs, for the error.

    Raises:
        UserError: it is not one row of float32 for each image.
    """
    if logits.ndim != 2 or len(logits) != images or logits.dtype != np.float32:
        raise UserError(
            f"{path}: returns {logits.dtype} of shape {logits.shape} for {images} images, not a row of logits each"
        )
    return torch.from_numpy(logits)


def require_fp32(engine: str, precision: str) -> None:
    """Refuse a precision other than FP32 for an engine whose files decide it.

    Raises:
        UserError: another precision; the flag is named.
    """
    if precision != "fp32":
        raise UserError(f"--precision {precision}: {engine} computes as its file says; choose when exporting")
