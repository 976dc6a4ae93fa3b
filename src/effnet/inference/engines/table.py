"""Which engines there are, what files they read, and which one to take."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from effnet.export.onnx import export_onnx
from effnet.export.tensorrt import export_tensorrt
from effnet.export.trained import TrainedModel
from effnet.inference.engines.network import Network
from effnet.inference.engines.onnxruntime import OnnxRuntimeNetwork
from effnet.inference.engines.openvino import OpenVinoNetwork
from effnet.inference.engines.tensorrt import TensorRtNetwork
from effnet.runtime.errors import UserError

Opened = Callable[[TrainedModel, torch.device, str, Path], Network]


def _by_onnx(network: Callable[..., Network]) -> Opened:
    """Opens a model on an engine that reads ONNX and is told the precision."""

    def opened(trained: TrainedModel, device: torch.device, precision: str, folder: Path) -> Network:
        path = folder / "model.onnx"
        export_onnx(trained.model, trained.metadata, path, device=device)
        return network(path, device, precision=precision)

    return opened


def _by_tensorrt(trained: TrainedModel, device: torch.device, precision: str, folder: Path) -> Network:
    """Opens a model in TensorRT, whose file decides the precision."""
    if precision not in ("fp32", "fp16"):
        raise UserError(f"--precision {precision}: TensorRT offers fp32 and fp16 here")
    path = folder / "model.engine"
    export_tensorrt(trained.model, trained.metadata, path, precision=precision, device=device)  # type: ignore[arg-type]
    return TensorRtNetwork(path, device)


@dataclass(frozen=True)
class EngineKind:
    """An engine.

    Attributes:
        name: what ``--engine`` takes.
        package: what has to be installed for it.
        device: type of device that it runs on; None for any.
        suffixes: files that it reads; none for PyTorch, which reads weights.
        network: opens such a file: (path, device, precision=...).
        from_weights: opens a model in memory by way of a file in a folder: (model, device, precision, folder).
    """

    name: str
    package: str
    device: str | None = None
    suffixes: tuple[str, ...] = ()
    network: Callable[..., Network] | None = None
    from_weights: Opened | None = None

    def runs_on(self, device: torch.device) -> bool:
        """Whether it is installed and has a use for the device."""
        there = importlib.util.find_spec(self.package) is not None
        return there and self.device in (None, device.type)


# The fastest in FP32 first: see docs/deployment.md for the measurements on a CPU, and TensorRT's own on GPUs.
_ROWS = (
    EngineKind("tensorrt", "tensorrt", "cuda", (".engine", ".plan"), TensorRtNetwork, _by_tensorrt),
    EngineKind("openvino", "openvino", "cpu", (".xml", ".onnx"), OpenVinoNetwork, _by_onnx(OpenVinoNetwork)),
    EngineKind(
        "onnxruntime", "onnxruntime", "cpu", (".onnx",), OnnxRuntimeNetwork, _by_onnx(OnnxRuntimeNetwork)
    ),
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
