"""A model as a TensorRT engine: built here if TensorRT and a GPU are present, elsewhere by the printed command.

Precision is in the graph (strongly typed networks), as TensorRT 11 requires and 10 supports.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from effnet.export.facts import INPUT
from effnet.export.onnx import ExportedFile, export_onnx
from effnet.export.packages import load_package, missing_package
from effnet.export.reference import Precision
from effnet.runtime.disk import check_writable
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_file, write_text
from effnet.runtime.plain import parse_json
from effnet.runtime.progress import working
from effnet.weights import WeightsMetadata


@dataclass(frozen=True)
class TensorRtPlan:
    """The files for TensorRT.

    Attributes:
        onnx: the ONNX file that the engine is built from.
        path: the engine's file.
        profile: the smallest, usual and largest shape of the input.
        built: the engine has been built here.
    """

    onnx: ExportedFile
    path: Path
    profile: Mapping[str, tuple[int, ...]]
    built: bool

    @property
    def command(self) -> str:
        """The `trtexec` command that builds the engine."""
        shapes = [
            f"--{name}Shapes={INPUT}:{'x'.join(map(str, shape))}" for name, shape in self.profile.items()
        ]
        files = [f"--onnx={self.onnx.path}", f"--saveEngine={self.path}"]
        return shlex.join(["trtexec", *files, *shapes, "--stronglyTyped"])


def export_tensorrt(
    model: nn.Module,
    metadata: WeightsMetadata,
    path: Path,
    *,
    precision: Precision = "fp16",
    batch_size: int = 1,
    max_batch_size: int = 256,
    preprocessing_in_graph: bool = False,
    probabilities: bool = False,
    tolerance: float | None = None,
    device: torch.device | str = "cpu",
) -> TensorRtPlan:
    """Write the ONNX file that TensorRT reads, the engine's metadata, and where possible the engine.

    Args:
        model, metadata, preprocessing_in_graph, probabilities, tolerance, device: as for `export_onnx`.
        path: the engine's file; the ONNX file and the metadata are written beside it, as `path` with `.onnx`
            and `.json` appended.
        precision: of the weights and activations; quantized parts are INT8 in any case.
        batch_size: batch size that the engine is tuned for.
        max_batch_size: largest one that it takes.

    Raises:
        UserError: a file can't be written or read, or TensorRT does not build from it.
    """
    if not 1 <= batch_size <= max_batch_size:
        raise UserError(f"--batch-size {batch_size} is above --max-batch-size {max_batch_size}")
    check_writable(path, make_folder=True)
    onnx_path = path.with_name(f"{path.name}.onnx")
    exported = export_onnx(
        model,
        metadata,
        onnx_path,
        target="tensorrt",
        precision=precision,
        preprocessing_in_graph=preprocessing_in_graph,
        probabilities=probabilities,
        tolerance=tolerance,
        device=device,
    )
    stored = load_package("onnx").load(onnx_path).metadata_props
    write_text(_facts_path(path), json.dumps({entry.key: entry.value for entry in stored}))
    side = metadata.preprocessing["image_size"]
    image = (side, side, 3) if preprocessing_in_graph else (3, side, side)
    profile = {"min": (1, *image), "opt": (batch_size, *image), "max": (max_batch_size, *image)}
    built = torch.cuda.is_available() and is_installed()
    if built:
        with working("building the engine"):
            _build(onnx_path, path, profile)
    return TensorRtPlan(exported, path, profile, built)


def is_installed() -> bool:
    """Return True if TensorRT is installed."""
    return missing_package("tensorrt") is None


def why_none() -> str | None:
    """Return why no engine can be built here, in one line with the remedy; None where one can."""
    elsewhere = "`effnet export tensorrt` writes what another machine builds it from"
    if not torch.cuda.is_available():
        return f"no NVIDIA GPU here; {elsewhere}"
    missing = missing_package("tensorrt", "onnx", "onnxruntime")
    return missing and f"{missing}; or {elsewhere}"


def _build(onnx_path: Path, path: Path, profile: Mapping[str, tuple[int, ...]]) -> None:
    trt = load_package("tensorrt")
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_path)):
        reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise UserError(f"{onnx_path}: not read by TensorRT: {reasons}")
    config = builder.create_builder_config()
    shapes = builder.create_optimization_profile()
    shapes.set_shape(INPUT, profile["min"], profile["opt"], profile["max"])
    config.add_optimization_profile(shapes)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise UserError(f"{onnx_path}: TensorRT builds no engine from it; see its messages above")
    with atomic_file(path) as file:
        file.write(memoryview(engine))


def read_engine(path: Path) -> tuple[Any, dict[str, str]]:
    """Return the `tensorrt.ICudaEngine` of a file, and the metadata in the file beside it, by key.

    Raises:
        UserError: TensorRT is missing, or a file is missing or of another version or GPU.
        UserError: damaged metadata.
    """
    trt = load_package("tensorrt")
    try:
        plan, facts = path.read_bytes(), parse_json(_facts_path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; `effnet export tensorrt` writes it") from None
    except UserError as error:
        raise UserError(f"{_facts_path(path)}: {error}") from None
    if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
        raise UserError(f"{_facts_path(path)}: holds no metadata; write it with `effnet export tensorrt`")
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)
    if engine is None:
        raise UserError(f"{path}: built by another version of TensorRT or for another GPU; build it again")
    return engine, facts


def _facts_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
