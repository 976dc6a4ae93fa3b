"""The server's programs that run models: the file of each, and what runs it here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.export.onnx import ExportedFile, export_onnx
from effnet.export.openvino import export_openvino
from effnet.export.tensorrt import TensorRtPlan, export_tensorrt
from effnet.export.triton.chain import Run, by_onnxruntime, by_openvino
from effnet.export.triton.settings import TritonSettings
from effnet.recipe.choices import OnnxTargetName
from effnet.runtime.processor import sums_overflow


@dataclass(frozen=True)
class Backend:
    """A program of the server that runs models.

    Attributes:
        file: name of the model's file.
        export: writes it.
        run: returns what runs the file here, or the ONNX file that it is built from. The second argument is True for a
            quantized model.
        options: further ones of `export`.
    """

    file: str
    export: Callable[..., ExportedFile | TensorRtPlan]
    run: Callable[[Path, bool], Run]
    options: Callable[[TritonSettings], dict[str, Any]] = lambda _: {}


def _run_onnx(path: Path, quantized: bool) -> Run:
    return by_onnxruntime(path, fused=not (quantized and sums_overflow()))


def _run_openvino(path: Path, quantized: bool) -> Run:
    return by_openvino(path)


def _run_for_tensorrt(path: Path, quantized: bool) -> Run:
    # Its integers are for GPUs: here they are rounded in float, as the file defines it.
    return by_onnxruntime(path, fused=not quantized)


def _tensorrt_options(settings: TritonSettings) -> dict[str, Any]:
    usual = settings.batching.preferred[-1] if settings.batching else 1
    return {"batch_size": usual, "max_batch_size": settings.max_batch_size}


BACKENDS: Mapping[OnnxTargetName, Backend] = {
    "onnxruntime": Backend("model.onnx", export_onnx, _run_onnx),
    "openvino": Backend("model.xml", export_openvino, _run_openvino),
    "tensorrt": Backend("model.plan", export_tensorrt, _run_for_tensorrt, _tensorrt_options),
}
"""the registry of backends"""
