"""What runs a trained model: one small interface, so that callers need not know which engine it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from effnet.data.preprocessing import Preprocessing
from effnet.models.efficientnet import EfficientNet
from effnet.models.weights import WeightsMetadata, load_model, published_tag
from effnet.recipe import ComputeSettings
from effnet.training.distributed import choose_device
from effnet.training.precision import Precision
from effnet.training.step import Normalise

# The model that needs no download: its weights come with a Python package.
DEFAULT_MODEL = "efficientnet-lite0"


class Engine(Protocol):
    """A trained model, ready to be asked."""

    metadata: WeightsMetadata
    """what is known about the model: classes and preprocessing"""
    preprocessing: Preprocessing
    """what images go through before they are passed"""

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (N, classes) of RGB images (N, image_size, image_size, 3)."""


@dataclass(frozen=True)
class ModelChoice:
    """Which model to use, as the command line says it.

    Attributes:
        arch: model's name; None for that of the weights, or `DEFAULT_MODEL` where there are none.
        weights: file of weights or a checkpoint; None for published ones.
        publisher: whose published weights; None for the first there are.
        ema: take a checkpoint's averaged weights.
        image_size: side in pixels; None for the weights'.
        device: ``auto``, ``cuda`` or ``cpu``.
        precision: as in `ComputeSettings`.
    """

    arch: str | None = None
    weights: Path | None = None
    publisher: str | None = None
    ema: bool = False
    image_size: int | None = None
    device: str = "auto"
    precision: str = "fp32"


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
        model: EfficientNet,
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
    source = choice.weights or published_tag(choice.arch or DEFAULT_MODEL, choice.publisher)
    model = load_model(source, name=choice.arch, ema=choice.ema)
    metadata = model.metadata or _assumed_metadata(model)
    preprocessing = Preprocessing.from_dict(metadata.preprocessing).at_size(choice.image_size)
    return TorchEngine(model, metadata, preprocessing, precision)


def _assumed_metadata(model: EfficientNet) -> WeightsMetadata:
    """For a file that says nothing of itself: the document's preprocessing at the model's size."""
    size = model.config.image_size
    return WeightsMetadata(model.config.name, Preprocessing(size, size + 32).to_dict())
