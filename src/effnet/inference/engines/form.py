"""The form of an engine."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from effnet.export.trained import TrainedModel
from effnet.inference.engines.network import Network

FromWeights = Callable[..., Network]
Settings = Mapping[str, int]
"""further arguments of an engine's network, such as ``streams``"""


@dataclass(frozen=True)
class Candidate:
    """An engine with settings of its own; as text, ``openvino streams=2``.

    Attributes:
        engine: its name.
        settings: names and values of its settings; those that are left out have their defaults.
    """

    engine: str
    settings: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return " ".join([self.engine, *(f"{name}={value}" for name, value in self.settings)])

    @classmethod
    def parse(cls, text: str) -> "Candidate":
        """Return the candidate of a text.

        Raises:
            ValueError: a setting that is no number.
        """
        engine, *words = text.split(" ")
        pairs = [word.partition("=") for word in words]
        return cls(engine, tuple((name, int(value)) for name, _, value in pairs))


def as_it_is(cores: int, images: int) -> Sequence[Settings]:
    """Return the settings of an engine that has none; see `EngineKind.settings`."""
    return ({},)


@dataclass(frozen=True)
class EngineKind:
    """An engine.

    Attributes:
        name: value of ``--engine``.
        summary: the engine and its devices, for the documentation's table.
        needs: what has to be installed for it, for the same table.
        package: module whose presence says that it is installed.
        from_weights: opens a model in memory, by way of a file in a folder where it needs one: (model, device,
            precision, folder, **settings). The precision is one of `ComputeSettings`. A file that is there already is
            used. None where it runs only files.
        device: type of device that it runs on; None for any.
        suffixes: files that it reads; empty for PyTorch, which reads weights.
        network: opens such a file: (path, device, precision=...).
        decodes: it reads files that decode images, too (``effnet export onnx --decode jpeg``).
        precisions: those that it offers for weights; empty for all.
        settings: settings worth comparing on so many cores for a batch of so many images: (cores, images); the first
            ones are those without a measurement.
        least_images: images below which it is not worth its preparation.
    """

    name: str
    summary: str
    needs: str
    package: str
    from_weights: FromWeights | None
    device: str | None = None
    suffixes: tuple[str, ...] = ()
    network: Callable[..., Network] | None = None
    decodes: bool = False
    precisions: tuple[str, ...] = ()
    settings: Callable[[int, int], Sequence[Settings]] = as_it_is
    least_images: int = 0

    def runs_on(self, device: torch.device) -> bool:
        """Return True if it is installed and has a use for the device."""
        is_installed = importlib.util.find_spec(self.package) is not None
        return is_installed and self.device in (None, device.type)


def by_onnx(network: Callable[..., Network]) -> FromWeights:
    """Return a function that opens a model on an engine which reads ONNX and is told the precision."""

    def from_weights(
        trained: TrainedModel, device: torch.device, precision: str, folder: Path, **settings: int
    ) -> Network:
        from effnet.export.onnx import export_onnx  # needed for no file that has been exported already

        path = folder / "model.onnx"
        if not path.exists():
            export_onnx(trained.model, trained.metadata, path, device=device)
        return network(path, device, precision=without_tf32(precision), **settings)

    return from_weights


def without_tf32(precision: str) -> str:
    """Return a precision for an engine other than PyTorch, which itself chooses how it computes in FP32."""
    return "fp32" if precision == "tf32" else precision
