"""What runs a trained model: one small interface, so that callers need not know which engine it is."""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from effnet.data.preprocessing import Preprocessing
from effnet.export.trained import ModelChoice, open_trained
from effnet.models.weights import WeightsMetadata
from effnet.recipe import ComputeSettings
from effnet.training.distributed import choose_device
from effnet.training.precision import Precision
from effnet.training.step import Normalise


class Engine(Protocol):
    """A trained model, ready to be asked."""

    metadata: WeightsMetadata
    """what is known about the model: classes and preprocessing"""
    preprocessing: Preprocessing
    """what images go through before they are passed"""

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (N, classes) of RGB images (N, image_size, image_size, 3)."""


class TorchEngine:
    """A model in PyTorch.

    Args:
        model: the network with its weights.
        metadata: what is known about them.
        preprocessing: sizes and normalisation.
        precision: arithmetic; holds the device.
    """

    def __init__(
        self,
        model: nn.Module,
        metadata: WeightsMetadata,
        preprocessing: Preprocessing,
        precision: Precision,
    ) -> None:
        self.metadata = metadata
        self.preprocessing = preprocessing
        self.precision = precision
        self.model = model.eval().to(device=precision.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalise = Normalise(preprocessing).to(precision.device)

    @torch.inference_mode()
    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (N, classes) of RGB images (N, image_size, image_size, 3)."""
        batch = torch.from_numpy(images).to(self.precision.device).permute(0, 3, 1, 2)
        with self.precision.autocast():
            logits = self.model(self.normalise(batch))
        probabilities: npt.NDArray[np.float32] = logits.float().softmax(1).cpu().numpy()
        return probabilities


def open_torch_engine(choice: ModelChoice) -> TorchEngine:
    """Find the weights, build the model they are for, and load them.

    Raises:
        ModelError: weights that can't be found, downloaded or read, or don't fit.
        UserError: a device or precision that is not there.
    """
    precision = Precision(
        ComputeSettings(device=choice.device, precision=choice.precision),  # type: ignore[arg-type]
        choose_device(choice.device),
    )
    trained = open_trained(choice)
    return TorchEngine(trained.model, trained.metadata, trained.preprocessing, precision)
