"""Networks that answer for an image by the mean of the probabilities of its views."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet.data.preprocessing import Preprocessing
from effnet.data.views import Views
from effnet.inference.engines.network import Network


class Averaged(nn.Module):
    """A network over views of its images.

    Args:
        network: takes prepared images of `side`, returns logits (N, classes).
        views: the views.
        side: of the network's input, in pixels.
        temperature: of its logits.
        several_labels: each class is a question of its own.
    """

    def __init__(
        self, network: nn.Module, views: Views, side: int, *, temperature: float, several_labels: bool
    ) -> None:
        super().__init__()
        self.network = network
        self.views = views
        self.side = side
        self.temperature = temperature
        self.several_labels = several_labels
        self._takes_bytes = isinstance(network, Network) and network.takes_bytes

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the mean probabilities, float32 (N, classes); see `mean_logits`."""
        answers = [
            self.network(view).float()
            for view in self.views.of(images, self.side, channels_last=self._takes_bytes)
        ]
        return mean_logits(answers, self.temperature, several_labels=self.several_labels)


class AveragedNetwork(Network):
    """A model on an engine, over views of its images; its confidence is that of the metadata.

    Args:
        network: the model on its engine.
        views: the views.
    """

    def __init__(self, network: Network, views: Views) -> None:
        super().__init__(
            network.metadata,
            network.device,
            takes_bytes=network.takes_bytes,
            precision=network.precision,
            decode=network.decode,
        )
        self.is_channels_last = network.is_channels_last
        self.compiles_each_size = network.compiles_each_size
        self._own = network.preprocessing
        self._views = views
        confidence = network.metadata.confidence
        self._averaged = Averaged(
            network,
            views,
            self._own.image_size,
            temperature=1.0 if confidence is None else confidence.temperature,
            several_labels=network.metadata.several_labels,
        )

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of images before the network: with crops, their side is that of the resized image."""
        return self._views.preprocessing(self._own)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the mean probabilities; see `Averaged`."""
        answers: Tensor = self._averaged(images)
        return answers


def mean_logits(logits: Sequence[Tensor], temperature: float, *, several_labels: bool) -> Tensor:
    """Return logits whose probabilities, at a temperature, are the means of those of several views.

    Of one label, their logsumexp is the mean of the views', so that the energy by which unknown images are told keeps
    its scale.

    Args:
        logits: of each view, float32 (N, classes).
        temperature: divisor of the logits before the softmax or sigmoid.
        several_labels: probabilities are sigmoids of each class.
    """
    views = torch.stack(list(logits))
    scaled = views / temperature
    if several_labels:
        return temperature * (F.logsigmoid(scaled).logsumexp(0) - F.logsigmoid(-scaled).logsumexp(0))
    mean = temperature * (scaled.log_softmax(2).logsumexp(0) - math.log(len(views)))
    level = views.logsumexp(2).mean(0) - mean.logsumexp(1)
    return mean + level[:, None]
