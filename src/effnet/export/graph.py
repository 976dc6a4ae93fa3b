"""The network between the input and the outputs of an exported file."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from effnet.data.preprocessing import Preprocessing
from effnet.export.facts import FEATURES, OUTPUT, PROBABILITIES
from effnet.export.features import FeatureExtractor
from effnet.export.resize import ResizeAndCrop
from effnet.recipe.choices import DecodeName, FeaturesName
from effnet.runtime.errors import UserError
from effnet.training.step import Normalise
from effnet.weights import WeightsMetadata


@dataclass(frozen=True)
class Ports:
    """The input and outputs of an exported file.

    Attributes:
        takes_bytes: the input is RGB bytes (N, H, W, 3), which the graph normalises; otherwise it is the model's.
        decode: what the graph does before it normalises. With ``resize`` H and W are open; with ``jpeg`` the input is
            the content of an image file, uint8 (bytes,). Both imply `takes_bytes`.
        probabilities: return `probabilities` (N, classes) beside the logits.
        features: return these, as `features`, instead of logits.

    Raises:
        UserError: probabilities of features.
    """

    takes_bytes: bool = False
    decode: DecodeName = "none"
    probabilities: bool = False
    features: FeaturesName | None = None

    def __post_init__(self) -> None:
        if self.features and self.probabilities:
            raise UserError(
                "--features: a file that returns features has no --probabilities; give one of them"
            )

    @property
    def resizes(self) -> bool:
        """True if images may have any height and width."""
        return self.decode != "none"

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        if self.features:
            return [FEATURES]
        return [OUTPUT, PROBABILITIES] if self.probabilities else [OUTPUT]


class ExportedGraph(nn.Module):
    """The exported graph: the model from its input, or bytes that it prepares, to float32 logits or features.

    Args:
        model: takes normalised images, returns logits, or what `ports.features` is to be taken of.
        metadata: preprocessing, temperature, and labels one or several.
        ports: input and outputs; what decodes files comes before this graph.
        dtype: of the model's weights and arithmetic; preparation and outputs are float32.
    """

    def __init__(self, model: nn.Module, metadata: WeightsMetadata, ports: Ports, dtype: torch.dtype) -> None:
        super().__init__()
        preprocessing = Preprocessing.from_dict(metadata.preprocessing)
        self.model = (FeatureExtractor(model, ports.features) if ports.features else model).to(dtype)
        self.dtype = dtype
        self.resize = ResizeAndCrop(preprocessing) if ports.resizes else None
        self.normalise = Normalise(preprocessing) if ports.takes_bytes or ports.resizes else None
        self.probabilities = Probabilities(metadata) if ports.probabilities else None

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the logits, and on request the probabilities; or the features."""
        if self.resize is not None:
            images = self.resize(images)
        elif self.normalise is not None:
            images = images.permute(0, 3, 1, 2)
        if self.normalise is not None:
            images = self.normalise(images)
        logits: Tensor = self.model(images.to(self.dtype)).float()
        return logits if self.probabilities is None else (logits, self.probabilities(logits))


class Probabilities(nn.Module):
    """Probabilities of logits (N, classes), with the temperature of the metadata.

    Where an image may have several labels, they are those of each label.
    """

    def __init__(self, metadata: WeightsMetadata) -> None:
        super().__init__()
        confidence = metadata.confidence
        self.temperature = 1.0 if confidence is None else confidence.temperature
        self.several_labels = metadata.several_labels

    def forward(self, logits: Tensor) -> Tensor:
        """Return the probabilities."""
        scaled = logits / self.temperature
        return scaled.sigmoid() if self.several_labels else scaled.softmax(1)
