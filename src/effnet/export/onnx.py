"""A model as an ONNX file, with its classes and its preprocessing in the file's metadata."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from effnet.data.preprocessing import Preprocessing
from effnet.export.decode import prepend_decoder
from effnet.export.facts import (
    CLASSES_KEY,
    DECODE_KEY,
    FEATURES_KEY,
    INPUT,
    METADATA_KEY,
    PRECISION_KEY,
    THRESHOLDS_KEY,
    WEIGHT_BITS_KEY,
)
from effnet.export.form import inference_form
from effnet.export.graph import ExportedGraph, Ports
from effnet.export.onnx_graph import operators, tidy, weight_bits
from effnet.export.packages import load_package
from effnet.export.reference import (
    Precision,
    Reference,
    check_difference,
    checked_answers,
    example_images,
    reference_for,
)
from effnet.export.session import open_session
from effnet.export.tracing import trace
from effnet.quantization.targets import TARGETS
from effnet.recipe.choices import DecodeName, FeaturesName, TargetName
from effnet.runtime.disk import check_writable
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_path
from effnet.runtime.processor import sums_overflow
from effnet.runtime.progress import working
from effnet.weights import WeightsMetadata

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}

_OVERFLOW = (
    "this CPU's engines will not return these logits: it has no VNNI, so that sums of products of 8 bits overflow; for "
    "such CPUs quantize with --cpu any"
)


@dataclass(frozen=True)
class ExportedFile:
    """A file that has been written.

    Attributes:
        path: the file.
        size: its bytes.
        operators: number of operators in its graph.
        opset: version of ONNX's operators; None in other formats.
        difference: largest absolute difference of a logit to PyTorch's, over all batches that were compared.
        batches: sizes of these batches.
        images: sizes of the images that were compared, where the file resizes them itself; (height, width).
        overflows: this CPU's sums of integers overflow, so that its engines return other logits than these.
    """

    path: Path
    size: int
    operators: int
    opset: int | None
    difference: float
    batches: tuple[int, ...]
    overflows: bool = False
    images: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        compared = f"batches of {', '.join(map(str, self.batches))} differ from PyTorch"
        if self.images:
            compared = f"images of {len(self.images)} sizes differ from PyTorch's validation"
        opset = f", opset {self.opset}" if self.opset else ""
        facts = (
            f"{self.path}: {self.size / 2**20:.1f} MiB, {self.operators} operators{opset}; "
            f"{compared} by at most {self.difference:.1e}"
        )
        return f"{facts}\n{_OVERFLOW}" if self.overflows else facts


def export_onnx(
    model: nn.Module,
    metadata: WeightsMetadata,
    path: Path,
    *,
    target: TargetName = "onnxruntime",
    precision: Precision = "fp32",
    batch_size: int | None = None,
    preprocessing_in_graph: bool = False,
    decode: DecodeName = "none",
    probabilities: bool = False,
    features: FeaturesName | None = None,
    tolerance: float | None = None,
    device: torch.device | str = "cpu",
    reference: Reference | None = None,
) -> ExportedFile:
    """Write a model as ONNX, and compare onnxruntime's logits with PyTorch's.

    A quantized model is compared as the file defines it, with rounding in float, since a CPU's integer arithmetic may
    overflow: see `effnet.quantization.targets`.

    The graph takes ``images`` and returns ``logits``, float32 (N, classes). `torch.fake_quantize_per_tensor_affine` and
    `torch.fake_quantize_per_channel_affine` become QuantizeLinear and DequantizeLinear, with zero points of type uint8
    for a range of 0 to 255 and int8 for -128 (or -127) to 127.

    Args:
        model: takes normalised images float32 (N, 3, H, W), returns logits (N, classes). Any module; BatchNorm and
            squeeze-and-excitation of this package's own layers are simplified first (`inference_form`).
        metadata: stored in the file; its preprocessing says the images' size, mean and standard deviation.
        path: file to write, atomically.
        target: engine that the file is for; decides the opset and the type of quantized activations.
        precision: of weights and activations between the float32 input and output; `fp16` is for GPUs.
        batch_size: fix N; None leaves it open.
        preprocessing_in_graph: take uint8 (N, H, W, 3) RGB images and normalise them in the graph; otherwise the graph
            takes what `model` does.
        decode: ``resize`` to take bytes of any height and width, which the graph resizes and crops as validation does;
            ``jpeg`` to take the content of a JPEG or PNG file, uint8 (bytes,), one in a call.
        probabilities: add the output ``probabilities``, with the metadata's temperature.
        features: return ``features`` in place of the logits, of which the gate then speaks: ``pooled`` (N, C) before
            the classifier, or ``map`` (N, C, H, W). Of models that have `extract_features`.
        tolerance: largest difference of a logit to PyTorch's that is accepted; None for that of `reference`.
        device: where PyTorch computes the logits to compare with.
        reference: PyTorch's logits, if they are needed for more than this file.

    Raises:
        UserError: a package is missing, the file can't be written, or its logits are not PyTorch's.
    """
    onnx = load_package("onnx")
    check_writable(path, make_folder=True)
    ports = Ports(preprocessing_in_graph, decode, probabilities, features)
    batch_size = _checked_batch(batch_size, decode)
    engine = TARGETS[target]
    if engine.opset is None:
        raise UserError(f"{target} does not read ONNX: effnet export {target} writes its files")
    with working(f"writing {path.name}"):
        form = inference_form(model, unsigned=engine.asymmetric).cpu()
        graph = ExportedGraph(form, metadata, ports, _DTYPES[precision]).eval()
        proto = _traced(
            graph, Preprocessing.from_dict(metadata.preprocessing), ports, engine.opset, batch_size
        )
        tidy(proto)
        if decode == "jpeg":
            prepend_decoder(proto)
        _describe(onnx, proto, metadata, precision, ports)
        onnx.checker.check_model(proto, full_check=True)
    if reference is None:
        reference = reference_for(
            model, metadata, decode, batch_size=batch_size, device=device, features=features
        )
    if tolerance is None:
        tolerance = reference.tolerance(precision)
    with atomic_path(path, make_folder=True) as temporary, working("comparing with PyTorch"):
        onnx.save(proto, temporary)
        in_integers = "DequantizeLinear" in operators(proto)
        difference, *fused = (
            reference.difference(
                partial(_logits, session, metadata, ports, path), takes_bytes=preprocessing_in_graph
            )
            for session in _sessions(temporary, in_integers)
        )
        check_difference(path, difference, tolerance)
    size, count = path.stat().st_size, sum(operators(proto).values())
    overflows = engine.on_x86 and sums_overflow() and any(other > tolerance for other in fused)
    compared = reference.batches, overflows, reference.sizes
    return ExportedFile(path, size, count, engine.opset, difference, *compared)


def _checked_batch(batch_size: int | None, decode: DecodeName) -> int | None:
    """Return the batch that the graph is traced with: one image where a file's bytes are taken.

    Raises:
        UserError: another one is asked for.
    """
    if decode != "jpeg":
        return batch_size
    if batch_size not in (None, 1):
        raise UserError("--decode jpeg takes one image in a call; leave --batch-size out")
    return 1


def _sessions(path: Path, in_integers: bool) -> Iterator[Any]:
    """Yield a session that must return PyTorch's logits, then one that may not on a CPU whose integer sums overflow."""
    if in_integers:
        yield open_session(path, fused=False)
    yield open_session(path)


def _logits(
    session: Any, metadata: WeightsMetadata, ports: Ports, path: Path, images: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    return checked_answers(session.run(ports.outputs, {INPUT: images}), metadata, path)


def _traced(
    graph: ExportedGraph, preprocessing: Preprocessing, ports: Ports, opset: int, batch_size: int | None
) -> Any:
    """Return the `onnx.ModelProto` of a graph."""
    open_sizes = {} if batch_size else {0: torch.export.Dim("batch", min=1)}
    if ports.resizes:
        open_sizes |= {1: torch.export.Dim("height", min=1), 2: torch.export.Dim("width", min=1)}
    example = example_images(preprocessing, batch_size or 2, graph.normalise is not None)
    if ports.resizes:  # height and width must differ, or they are taken for one size
        example = torch.cat([example, example[:, :, :3]], dim=2)
    return trace(graph, example, opset=opset, open_sizes=open_sizes, outputs=ports.outputs)


def _describe(onnx: Any, proto: Any, metadata: WeightsMetadata, precision: Precision, ports: Ports) -> None:
    proto.producer_name, proto.producer_version = "effnet", "pytorch " + torch.__version__
    facts = {
        METADATA_KEY: json.dumps(metadata.to_dict()),
        # For readers without this project's class lists.
        CLASSES_KEY: json.dumps(list(metadata.class_names())),
        PRECISION_KEY: "int8" if "DequantizeLinear" in operators(proto) else precision,
    }
    if bits := weight_bits(proto):
        facts[WEIGHT_BITS_KEY] = str(bits)
    if ports.resizes:
        facts[DECODE_KEY] = ports.decode
    if ports.features:
        facts[FEATURES_KEY] = ports.features
    if metadata.several_labels:
        facts[THRESHOLDS_KEY] = json.dumps(list(metadata.thresholds))
    onnx.helper.set_model_props(proto, facts)
