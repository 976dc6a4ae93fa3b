"""Which engines there are, what files they read, and which one to take."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from effnet.errors import UserError
from effnet.export.onnx import export_onnx
from effnet.export.tensorrt import export_tensorrt
from effnet.export.trained import TrainedModel
from effnet.inference.engines.network import Network
from effnet.inference.engines.onnxruntime import OnnxRuntimeNetwork
from effnet.inference.engines.openvino import OpenVinoNetwork
from effnet.inference.engines.tensorrt import TensorRtNetwork


def _to_onnx(trained: TrainedModel, folder: Path, device: torch.device) -> Path:
    path = folder / "model.onnx"
    export_onnx(trained.model, trained.metadata, path, device=device)
    return path


def _to_tensorrt(trained: TrainedModel, folder: Path, device: torch.device) -> Path:
    path = folder / "model.engine"
    export_tensorrt(trained.model, trained.metadata, path, precision="fp32", device=device)
    return path


@dataclass(frozen=True)
class EngineKind:
    """An engine.

    Attributes:
        name: what ``--engine`` takes.
        package: what has to be installed for it.
        device: type of device that it runs on; None for any.
        suffixes: files that it reads; none for PyTorch, which reads weights.
        network: opens such a file: (path, device, precision=...).
        export: writes a file from a model into a folder and gives its path: (model, folder, device).
    """

    name: str
    package: str
    device: str | None = None
    suffixes: tuple[str, ...] = ()
    network: Callable[..., Network] | None = None
    export: Callable[[TrainedModel, Path, torch.device], Path] | None = None

    def runs_on(self, device: torch.device) -> bool:
        """Whether it is installed and has a use for the device."""
        there = importlib.util.find_spec(self.package) is not None
        return there and self.device in (None, device.type)


# The fastest in FP32 first: see docs/deployment.md for the measurements on a CPU, and TensorRT's own on GPUs.
_ROWS = (
    EngineKind("tensorrt", "tensorrt", "cuda", (".engine", ".plan"), TensorRtNetwork, _to_tensorrt),
    EngineKind("openvino", "openvino", "cpu", (".xml", ".onnx"), OpenVinoNetwork, _to_onnx),
    EngineKind("onnxruntime", "onnxruntime", "cpu", (".onnx",), OnnxRuntimeNetwork, _to_onnx),
    EngineKind("torch-compiled", "torch"),
    EngineKind("torch", "torch"),
)
ENGINES = {row.name: row for row in _ROWS}
EXPORTED_SUFFIXES = tuple({suffix for row in _ROWS for suffix in row.suffixes})


def fastest(device: torch.device) -> EngineKind:
    """The fastest engine for a float model among those installed."""
    return next(kind for kind in _ROWS if kind.runs_on(device))


def kind_of_file(path: Path, device: torch.device) -> EngineKind:
    """The fastest engine installed that reads a file.

    Raises:
        UserError: none of them does.
    """
    reading = [kind for kind in _ROWS if path.suffix in kind.suffixes]
    for kind in reading:
        if kind.runs_on(device):
            return kind
    names = " or ".join(kind.name for kind in reading)
    raise UserError(f"{path} needs {names}, which is not installed or does not run on {device.type}")
