"""A trained model on an engine, behind one interface for all engines."""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effnet.data.views import views_of
from effnet.export.trained import ModelChoice, TrainedModel, open_trained
from effnet.inference.auto.cases import case_of_file, case_of_weights, open_weights
from effnet.inference.auto.choose import Chooser, Opened, Work
from effnet.inference.engines import ENGINES, Candidate, is_exported, kind_of_file
from effnet.inference.engines.network import Network
from effnet.inference.views import AveragedNetwork
from effnet.runtime.errors import UserError
from effnet.runtime.processes import choose_device
from effnet.training.step import Normalise
from effnet.training.unknown import are_known

AUTO = "auto"
_ONE = Work(1, 1)


class Engine:
    """A trained model on an engine.

    Args:
        candidate: the engine, or its name where its settings are the defaults.
        network: the model on it.

    Attributes:
        name: the engine's name, a key of `ENGINES`.
        metadata: the model's classes and preprocessing.
        preprocessing: the preprocessing of images before they are passed; its `image_size` is their side. A network
            that resizes images itself takes them without it as well, of any height and width.
        device: the device that images are expected on.
    """

    def __init__(self, candidate: Candidate | str, network: Network) -> None:
        self.candidate = Candidate(candidate) if isinstance(candidate, str) else candidate
        self.name = self.candidate.engine
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


def open_engine(
    choice: ModelChoice, engine: str | None = None, tta: str = "none", work: Work = _ONE
) -> Engine:
    """Open the model of a choice on an engine.

    Args:
        choice: weights, or a file that `effnet export` wrote.
        engine: a key of `ENGINES`, or the text of a `Candidate`; ``auto`` for the fastest one here; None for the file's
            own, which is PyTorch for weights. Weights for another engine are exported to it first, which takes seconds.
        tta: views of each image over which probabilities are averaged, a key of `effnet.data.views.VIEWS`.
        work: what it is for, which decides whether ``auto`` measures.

    Raises:
        UserError: weights that can't be found, downloaded or read, or don't fit the model.
        UserError: an engine, device, precision or file that is missing or contradicts the others.
    """
    views = views_of(tta)
    opened = _opened(choice, engine, work)
    if not views.are_several:
        return opened
    return Engine(opened.candidate, AveragedNetwork(opened.network, views))


def _opened(choice: ModelChoice, engine: str | None, work: Work) -> Engine:
    device = choose_device(choice.device)
    if engine not in (None, AUTO):
        _parsed(engine)
    if not is_exported(choice.weights):
        return engine_of(open_trained(choice), engine or "torch", device, choice.precision, work)
    assert choice.weights is not None
    if engine == AUTO:
        found = Chooser().choose(case_of_file(choice.weights, device, choice.precision, work), work)
    else:
        name = kind_of_file(choice.weights, device).name if engine is None else engine
        found = _open_file(choice, _parsed(name), device)
    return _checked(choice, Engine(*found))


def _parsed(engine: str) -> Candidate:
    """Return an engine and its settings.

    Raises:
        UserError: there is no such engine.
    """
    try:
        candidate = Candidate.parse(engine)
    except ValueError:
        candidate = Candidate(engine)
    if candidate.engine not in ENGINES:
        raise UserError(f"--engine must be one of {', '.join((AUTO, *ENGINES))}, not {engine!r}")
    return candidate


def engine_of(
    trained: TrainedModel, engine: str, device: torch.device, precision: str, work: Work = _ONE
) -> Engine:
    """Open a model in memory on an engine, exported to a temporary file where the engine needs one.

    Args:
        trained: the model.
        engine: as for `open_engine`.
        device: the device to run on.
        precision: as in `ComputeSettings`.
        work: as for `open_engine`.

    Raises:
        UserError: the engine is not installed, or a device or precision that it does not offer.
    """
    with tempfile.TemporaryDirectory() as folder:
        if engine == AUTO:
            case = case_of_weights(trained, device, precision, Path(folder), work)
            return Engine(*Chooser().choose(case, work))
        candidate = _parsed(engine)
        return Engine(candidate, open_weights(candidate, trained, device, precision, Path(folder)))


def _open_file(choice: ModelChoice, candidate: Candidate, device: torch.device) -> Opened:
    path, kind = choice.weights, ENGINES[candidate.engine]
    assert path is not None
    if kind.network is None or path.suffix not in kind.suffixes:
        reads = f"reads {' and '.join(kind.suffixes)}" if kind.suffixes else "reads weights"
        raise UserError(f"--engine {kind.name} {reads}, not {path}")
    network = kind.network(path, device, precision=choice.precision, **dict(candidate.settings))
    return Opened(candidate, network)


def _checked(choice: ModelChoice, opened: Engine) -> Engine:
    """Return an engine on a file, unless the choice asks for something else than the file holds.

    Raises:
        UserError: the flag is named.
    """
    path = choice.weights
    if classes := opened.metadata.class_folders():
        choice.check_classes(len(classes), path)
    has = {"image_size": opened.metadata.preprocessing["image_size"], "arch": opened.metadata.model}
    for flag, value in has.items():
        if (wanted := getattr(choice, flag)) not in (None, value):
            raise UserError(f"--{flag.replace('_', '-')} {wanted}: {path} is for {value}; export it again")
    return opened
