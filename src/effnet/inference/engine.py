"""What runs a trained model: one interface, so that callers need not know which engine it is."""

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effnet.export.trained import ModelChoice, TrainedModel, open_trained
from effnet.inference.engines.network import Network
from effnet.inference.engines.table import ENGINES, EXPORTED_SUFFIXES, EngineKind, fastest, kind_of_file
from effnet.inference.engines.torch import TorchNetwork
from effnet.runtime.errors import UserError
from effnet.runtime.precision import Precision
from effnet.runtime.processes import choose_device
from effnet.training.step import Normalise

AUTO = "auto"


class Engine:
    """A trained model, ready to be asked.

    Args:
        name: the engine's, a key of `ENGINES`.
        network: the model on it.

    Attributes:
        metadata: what is known about the model: classes and preprocessing.
        preprocessing: what images go through before they are passed.
        device: where images are expected.
    """

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self.network = network
        self.metadata = network.metadata
        self.preprocessing = network.preprocessing
        self.device = network.device
        self._normalise = Normalise(self.preprocessing).to(network.device)

    def prepare(self, images: Tensor) -> Tensor:
        """What `network` takes of RGB images uint8 (N, 3, H, W) on `device`."""
        return images.permute(0, 2, 3, 1) if self.network.takes_bytes else self._normalise(images)

    @torch.inference_mode()
    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities (N, classes) of RGB images (N, image_size, image_size, 3)."""
        batch = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        probabilities: npt.NDArray[np.float32] = self.network(self.prepare(batch)).softmax(1).cpu().numpy()
        return probabilities


def is_exported(path: Path | None) -> bool:
    """Whether a file is for an engine other than PyTorch."""
    return path is not None and path.suffix in EXPORTED_SUFFIXES


def open_engine(choice: ModelChoice, engine: str | None = None) -> Engine:
    """The model of a choice on an engine.

    Args:
        choice: weights, or a file that `effnet export` wrote.
        engine: a key of `ENGINES`; ``auto`` for the fastest one here; None for the file's own, which is PyTorch for
            weights. Weights for another engine are exported to it first, which takes seconds.

    Raises:
        UserError: weights that can't be found, downloaded or read, or don't fit.
        UserError: an engine, device, precision or file that is not there or does not go with the others.
    """
    device = choose_device(choice.device)
    if engine not in (None, AUTO, *ENGINES):
        raise UserError(f"--engine must be one of {', '.join((AUTO, *ENGINES))}, not {engine!r}")
    if not is_exported(choice.weights):
        return engine_of(open_trained(choice), engine or "torch", device, choice.precision)
    assert choice.weights is not None
    kind = kind_of_file(choice.weights, device) if engine in (None, AUTO) else ENGINES[str(engine)]
    return _open_file(choice, kind, device)


def engine_of(trained: TrainedModel, engine: str, device: torch.device, precision: str) -> Engine:
    """A model in memory on an engine, exported to it where it needs a file.

    Args:
        trained: the model.
        engine: a key of `ENGINES`, or ``auto``.
        device: where to run.
        precision: as in `ComputeSettings`.

    Raises:
        UserError: the engine is not installed, or a device or precision that it does not offer.
    """
    kind = fastest(device) if engine == AUTO else ENGINES[engine]
    if kind.from_weights is None:
        compiles = kind.name == "torch-compiled"
        return Engine(kind.name, TorchNetwork(trained, Precision(precision, device), compiles=compiles))
    with tempfile.TemporaryDirectory() as folder:
        # TF32 is PyTorch's word; another engine chooses how it computes in FP32.
        named = "fp32" if precision == "tf32" else precision
        return Engine(kind.name, kind.from_weights(trained, device, named, Path(folder)))


def _open_file(choice: ModelChoice, kind: EngineKind, device: torch.device) -> Engine:
    path = choice.weights
    assert path is not None
    if kind.network is None or path.suffix not in kind.suffixes:
        reads = f"reads {' and '.join(kind.suffixes)}" if kind.suffixes else "reads weights"
        raise UserError(f"--engine {kind.name} {reads}, not {path}")
    opened = Engine(kind.name, kind.network(path, device, precision=choice.precision))
    if classes := opened.metadata.class_folders():
        choice.check_classes(len(classes), path)
    has = {"image_size": opened.preprocessing.image_size, "arch": opened.metadata.model}
    for flag, value in has.items():
        if (wanted := getattr(choice, flag)) not in (None, value):
            raise UserError(f"--{flag.replace('_', '-')} {wanted}: {path} is for {value}; export it anew")
    return opened
