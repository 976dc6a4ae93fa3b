"""Demands of a run on its model, on which the choice of kernels depends."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

Mode = Literal["auto", "triton", "torch"]


@dataclass(frozen=True)
class Workload:
    """Demands of a run on its model.

    Attributes:
        batch_size: images of a step.
        image_size: side in pixels.
        dtype: autocast's type, or None without autocast.
        compiled: whether the step goes through `torch.compile`.
        training: forward and backward in training, or forward in evaluation.
        channels_last: whether images and activations are in that memory format, which the kernels are for.
        batch_statistics: whether BatchNorm takes the batch's statistics in training, not those of a frozen backbone.
    """

    batch_size: int
    image_size: int
    dtype: torch.dtype | None
    compiled: bool
    training: bool = True
    channels_last: bool = True
    batch_statistics: bool = True

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Context of the forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(device.type, self.dtype)
