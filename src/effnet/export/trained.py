"""A trained model, found by the choices of a command line."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from effnet.data.preprocessing import Preprocessing
from effnet.models.efficientnet import EfficientNet
from effnet.quantization.model import build
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata, load_model, published_tag

# The model whose weights come with a Python package, without a download.
DEFAULT_MODEL = "efficientnet-lite0"


@dataclass(frozen=True)
class ModelChoice:
    """The choice of a model on a command line.

    Attributes:
        arch: model's name; None for that of the weights, or `DEFAULT_MODEL` where there are none.
        weights: file of weights or a checkpoint; None for published ones.
        publisher: whose published weights; None for the first there are.
        ema: take a checkpoint's averaged weights.
        image_size: side in pixels; None for the weights'.
        num_classes: classes that the weights must have; None for any number.
        device: ``auto``, ``cuda`` or ``cpu``.
        precision: as in `ComputeSettings`.
    """

    arch: str | None = None
    weights: Path | None = None
    publisher: str | None = None
    ema: bool = False
    image_size: int | None = None
    num_classes: int | None = None
    device: str = "auto"
    precision: str = "fp32"

    def check_classes(self, found: int, source: object) -> None:
        """Refuse a model with a number of classes other than `num_classes`.

        Args:
            found: its classes.
            source: the weights or the file, to be named.

        Raises:
            UserError: `num_classes` is another number.
        """
        if self.num_classes not in (None, found):
            raise UserError(
                f"--num-classes {self.num_classes}: {source} has {found} classes; leave the flag out, or train again "
                "with --num-classes"
            )


@dataclass(frozen=True)
class TrainedModel:
    """A model with its weights and their metadata.

    Attributes:
        model: takes normalised images float32 (N, 3, H, W), returns logits (N, classes); in evaluation mode on the CPU.
        metadata: classes, and the preprocessing at the size that was asked for.
    """

    model: nn.Module
    metadata: WeightsMetadata

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of images before the model."""
        return Preprocessing.from_dict(self.metadata.preprocessing)


def open_trained(choice: ModelChoice) -> TrainedModel:
    """Find the weights, build the model they are for, and load them.

    Raises:
        UserError: weights that can't be found, downloaded or read, or don't fit the model.
        UserError: an invalid image size, or a number of classes other than `choice.num_classes`.
    """
    source = choice.weights or published_tag(choice.arch or DEFAULT_MODEL, choice.publisher)
    model = load_model(source, name=choice.arch, ema=choice.ema, build=build)
    choice.check_classes(model.config.num_classes, source)
    metadata = model.metadata or _assumed_metadata(model)
    preprocessing = Preprocessing.from_dict(metadata.preprocessing).at_size(choice.image_size)
    return TrainedModel(model.eval(), replace(metadata, preprocessing=preprocessing.to_dict()))


def _assumed_metadata(model: EfficientNet) -> WeightsMetadata:
    """Return the metadata of a file without any: NVIDIA's preprocessing at the model's size."""
    config = model.config
    return WeightsMetadata(
        config.name,
        Preprocessing(config.image_size, config.image_size + 32).to_dict(),
        bn_epsilon=config.bn_epsilon,
        padding=config.padding,
    )
