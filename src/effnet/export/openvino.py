"""A model as OpenVINO's own pair of files, .xml and .bin."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from effnet.export.facts import DECODE_KEY, FEATURES_KEY, METADATA_KEY, PRECISION_KEY, WEIGHT_BITS_KEY
from effnet.export.onnx import ExportedFile, export_onnx
from effnet.export.packages import load_package
from effnet.export.reference import Precision, check_difference, checked_answers, reference_for
from effnet.export.signal_stack import kept_signal_stack
from effnet.recipe.choices import DecodeName, FeaturesName
from effnet.runtime.disk import check_writable
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.files import atomic_paths
from effnet.runtime.progress import working
from effnet.runtime.suggestions import suggested_path
from effnet.weights import WeightsMetadata

# The section in which OpenVINO keeps an ONNX file's metadata, also in its own files.
_FACTS = "framework"
_KEYS = (METADATA_KEY, PRECISION_KEY, WEIGHT_BITS_KEY, FEATURES_KEY, DECODE_KEY)


def export_openvino(
    model: nn.Module,
    metadata: WeightsMetadata,
    path: Path,
    *,
    precision: Precision = "fp32",
    batch_size: int | None = None,
    preprocessing_in_graph: bool = False,
    decode: DecodeName = "none",
    probabilities: bool = False,
    features: FeaturesName | None = None,
    tolerance: float | None = None,
    device: torch.device | str = "cpu",
) -> ExportedFile:
    """Write a model as OpenVINO's .xml and .bin, and compare OpenVINO's logits with PyTorch's.

    Args:
        model, metadata, batch_size, preprocessing_in_graph, decode, probabilities, features, tolerance, device: as
            for `export_onnx`, which writes an intermediate file. OpenVINO decodes no image files.
        path: the .xml file to write; weights go to the .bin beside it.
        precision: `fp16` stores the weights in half the bytes; it computes as the engine is told to.

    Raises:
        UserError: a package is missing, a file can't be written, or its logits are not PyTorch's.
    """
    if path.suffix != ".xml":
        raise UserError(f"{path}: OpenVINO's files end in .xml")
    openvino = load_package("openvino")
    check_writable(path, make_folder=True)
    check_writable(weights := path.with_suffix(".bin"))
    if decode == "jpeg":
        raise UserError("--decode jpeg: OpenVINO decodes no image files; give --decode resize")
    reference = reference_for(
        model, metadata, decode, batch_size=batch_size, device=device, features=features
    )
    with tempfile.TemporaryDirectory() as folder:
        onnx_path = Path(folder) / path.with_suffix(".onnx").name
        exported = export_onnx(
            model,
            metadata,
            onnx_path,
            target="openvino",
            batch_size=batch_size,
            preprocessing_in_graph=preprocessing_in_graph,
            decode=decode,
            probabilities=probabilities,
            features=features,
            tolerance=tolerance,
            reference=reference,
        )
        with working(f"writing {path.name}"):
            converted = openvino.convert_model(onnx_path)
    # OpenVINO names the second file after the first, which holds for the temporary names as well.
    with atomic_paths(path, weights, make_folder=True) as (temporary, _), working("comparing with PyTorch"):
        openvino.save_model(converted, temporary, compress_to_fp16=precision == "fp16")
        written = openvino.Core().read_model(temporary)
        compiled = compile_openvino(written)
        if exported.overflows:  # OpenVINO's sums overflow as well
            difference = exported.difference
        else:
            difference = reference.difference(
                lambda images: checked_answers(list(compiled(images).values()), metadata, path),
                takes_bytes=preprocessing_in_graph,
            )
            check_difference(
                path, difference, reference.tolerance(precision) if tolerance is None else tolerance
            )
        operators = sum(
            op.get_type_name() not in ("Constant", "Parameter", "Result") for op in written.get_ops()
        )
    size = path.stat().st_size + weights.stat().st_size
    compared = reference.batches, exported.overflows, reference.sizes
    return ExportedFile(path, size, operators, None, difference, *compared)


def read_openvino(path: Path) -> tuple[Any, dict[str, str]]:
    """Return the `openvino.Model` of an .xml or .onnx file, and the file's metadata by key.

    Raises:
        UserError: OpenVINO is missing, or does not read the file.
    """
    openvino = load_package("openvino")
    if not path.is_file():
        raise UserError(f"{path}: no such file{suggested_path(path)}")
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise UserError(
            f"{path}: not read by OpenVINO: {one_line(str(error).strip().rpartition(chr(10))[2])}"
        ) from None
    try:
        keys = [key for key in _KEYS if model.has_rt_info([_FACTS, key])]
        return model, {key: str(model.get_rt_info([_FACTS, key]).astype(str)) for key in keys}
    except RuntimeError as error:  # a section where a text must be
        raise UserError(f"{path}: its metadata can't be read: {one_line(error)}") from None


def compile_openvino(model: Any, *, precision: str = "f32", threads: int = 0, streams: int = 0) -> Any:
    """Return an `openvino.CompiledModel` for the CPU.

    Args:
        model: `openvino.Model`.
        precision: `f32` or `bf16`; OpenVINO's own default is the latter where the CPU has it.
        threads: 0 for one per core.
        streams: requests that are computed side by side, each by its share of the threads; 0 for one at a time.
    """
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if streams:
        settings |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": streams}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    with kept_signal_stack():
        return load_package("openvino").Core().compile_model(model, "CPU", settings)
