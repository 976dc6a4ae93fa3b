"""A trained model on an engine, behind one interface for all engines."""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effnet.data.views import views_of
from effnet.export.trained import ModelChoice, TrainedModel, open_trained
from effnet.inference.engines.network import Network
from effnet.inference.engines.table import ENGINES, EngineKind, fastest, is_exported, kind_of_file
from effnet.inference.views import AveragedNetwork
from effnet.runtime.errors import UserError
from effnet.runtime.processes import choose_device
from effnet.training.step import Normalise
from effnet.training.unknown import are_known

AUTO = "auto"


class Engine:
    """A trained model on an engine.

    Args:
        name: the engine's name, a key of `ENGINES`.
        network: the model on it.

    Attributes:
        metadata: the model's classes and preprocessing.
        preprocessing: the preprocessing of images before they are passed; its `image_size` is their side. A network
            that resizes images itself takes them without it as well, of any height and width.
        device: the device that images are expected on.
    """

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self.network = network
        self.metadata = network.metadata
        self.preprocessing = network.preprocessing
        self.device = network.device
        self._normalise = Normalise(self.preprocessing).to(network.device)

    def prepare(self, images: Tensor) -> Tensor:
        """Return the input of `network` for RGB images uint8 (N, 3, H, W) on `device`."""
        return images.permute(0, 2, 3, 1) if self.network.takes_bytes else self._normalise(images)

    @torch.inference_mode()
    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return probabilities float32 (N, classes) for RGB images uint8 (N, image_size, image_size, 3)."""
        return self.probabilities(self.logits(images))

    @torch.inference_mode()
    def logits(self, images: npt.NDArray[np.uint8]) -> Tensor:
        """Return logits float32 (N, classes) on `device` for images as a call takes them."""
        batch = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        logits: Tensor = self.network(self.prepare(batch))
        return logits

    def probabilities(self, logits: Tensor) -> npt.NDArray[np.float32]:
        """Return probabilities float32 (N, classes) for logits, with the temperature of the metadata.

        Where an image may have several labels, they are those of each label.
        """
        confidence = self.metadata.confidence
        if confidence is not None:
            logits = logits / confidence.temperature
        answers = logits.sigmoid() if self.metadata.several_labels else logits.softmax(1)
        probabilities: npt.NDArray[np.float32] = answers.cpu().numpy()
        return probabilities

    def known(self, logits: Tensor) -> npt.NDArray[np.bool_]:
        """Return True for logits of images of one of the classes, bool (N,), by the rule of the metadata.

        Raises:
            UserError: the metadata hold no rule.
        """
        confidence = self.metadata.confidence
        if confidence is None or confidence.unknown is None:
            raise UserError(
                f"--unknown: the weights of {self.metadata.model} say nothing about unknown images; train or quantize "
                "again with --calibrate-confidence and a validation set of 20 images or more"
            )
        known: npt.NDArray[np.bool_] = (
            are_known(logits, confidence.temperature, confidence.unknown).cpu().numpy()
        )
        return known


def open_engine(choice: ModelChoice, engine: str | None = None, tta: str = "none") -> Engine:
    """Open the model of a choice on an engine.

    Args:
        choice: weights, or a file that `effnet export` wrote.
        engine: a key of `ENGINES`; ``auto`` for the fastest one here; None for the file's own, which is PyTorch for
            weights. Weights for another engine are exported to it first, which takes seconds.
        tta: views of each image over which probabilities are averaged, a key of `effnet.data.views.VIEWS`.

    Raises:
        UserError: weights that can't be found, downloaded or read, or don't fit the model.
        UserError: an engine, device, precision or file that is missing or contradicts the others.
    """
    views = views_of(tta)
    opened = _opened(choice, engine)
    return Engine(opened.name, AveragedNetwork(opened.network, views)) if views.are_several else opened


def _opened(choice: ModelChoice, engine: str | None) -> Engine:
    device = choose_device(choice.device)
    if engine not in (None, AUTO, *ENGINES):
        raise UserError(f"--engine must be one of {', '.join((AUTO, *ENGINES))}, not {engine!r}")
    if not is_exported(choice.weights):
        return engine_of(open_trained(choice), engine or "torch", device, choice.precision)
    assert choice.weights is not None
    kind = kind_of_file(choice.weights, device) if engine in (None, AUTO) else ENGINES[str(engine)]
    return _open_file(choice, kind, device)


def engine_of(trained: TrainedModel, engine: str, device: torch.device, precision: str) -> Engine:
    """Open a model in memory on an engine, exported to a temporary file where the engine needs one.

    Args:
        trained: the model.
        engine: a key of `ENGINES`, or ``auto``.
        device: the device to run on.
        precision: as in `ComputeSettings`.

    Raises:
        UserError: the engine is not installed, or a device or precision that it does not offer.
    """
    kind = fastest(device) if engine == AUTO else ENGINES[engine]
    if kind.from_weights is None:
        raise UserError(
            f"--engine {kind.name} runs {' and '.join(kind.suffixes)} files, not weights; `effnet export {kind.name}` "
            "writes one"
        )
    with tempfile.TemporaryDirectory() as folder:
        return Engine(kind.name, kind.from_weights(trained, device, precision, Path(folder)))


def _open_file(choice: ModelChoice, kind: EngineKind, device: torch.device) -> Engine:
    path = choice.weights
    assert path is not None
    if kind.network is None or path.suffix not in kind.suffixes:
        reads = f"reads {' and '.join(kind.suffixes)}" if kind.suffixes else "reads weights"
        raise UserError(f"--engine {kind.name} {reads}, not {path}")
    opened = Engine(kind.name, kind.network(path, device, precision=choice.precision))
    if classes := opened.metadata.class_folders():
        choice.check_classes(len(classes), path)
    has = {"image_size": opened.metadata.preprocessing["image_size"], "arch": opened.metadata.model}
    for flag, value in has.items():
        if (wanted := getattr(choice, flag)) not in (None, value):
            raise UserError(f"--{flag.replace('_', '-')} {wanted}: {path} is for {value}; export it again")
    return opened
