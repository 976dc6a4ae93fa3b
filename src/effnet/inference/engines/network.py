"""What every engine offers: a network that is called like a PyTorch module."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from effnet.data.preprocessing import Preprocessing
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata


class Network(nn.Module):
    """A model on an engine: images in, logits out, float32 (N, classes) on `device`.

    Attributes:
        metadata: what is known about the model: classes and preprocessing.
        device: where it expects images.
        takes_bytes: whether images are RGB bytes (N, S, S, 3), which it normalises itself; otherwise they are
            normalised, float32 (N, 3, S, S).
        precision: what it computes in: `fp32`, `fp16`, `bf16`, `tf32`, or `int8` with the rest in floating point.
    """

    is_channels_last = False
    """whether float images had better lie channels-last in memory"""

    def __init__(
        self,
        metadata: WeightsMetadata,
        device: torch.device | None = None,
        *,
        takes_bytes: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.metadata = metadata
        self.device = device or torch.device("cpu")
        self.takes_bytes = takes_bytes
        self.precision = precision
        self.eval()

    @property
    def preprocessing(self) -> Preprocessing:
        """What images go through before the network."""
        return Preprocessing.from_dict(self.metadata.preprocessing)


def as_array(images: Tensor) -> npt.NDArray[np.generic]:
    """Images as engines outside PyTorch take them: in one piece, in the order of their axes."""
    array: npt.NDArray[np.generic] = images.contiguous().cpu().numpy()
    return array


def require_fp32(engine: str, precision: str) -> None:
    """Refuse a precision for an engine whose files decide it.

    Raises:
        UserError: naming the flag.
    """
    if precision != "fp32":
        raise UserError(f"--precision {precision}: {engine} computes as its file says; choose when exporting")
