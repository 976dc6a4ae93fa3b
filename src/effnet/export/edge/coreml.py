"""Core ML: .mlpackage folders for Apple's devices. Core ML runs on macOS alone: its own answers wait for a Mac."""

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from effnet.data.preprocessing import Preprocessing
from effnet.export.edge.environment import Converter
from effnet.export.edge.formats import CHECKED_IMAGES
from effnet.export.edge.package import atomic_package, check_package_place, package_size
from effnet.export.edge.program import export_program, is_quantized, save_program
from effnet.export.facts import CLASSES_KEY, METADATA_KEY, PRECISION_KEY, THRESHOLDS_KEY
from effnet.export.reference import Precision, Reference, check_difference
from effnet.runtime.progress import working
from effnet.weights import WeightsMetadata

SUFFIX = ".mlpackage"
EXAMPLE_KEY = "example_logits"
"""metadata: PyTorch's logits of `example_pixels`, a JSON list, for a check on a Mac"""

CONVERTER = Converter(
    "coreml",
    (
        "coremltools==9.0",
        "attrs==26.1.0",
        "cattrs==26.2.1",
        "mpmath==1.3.0",
        "packaging==26.3",
        "pillow==13.0.0",
        "protobuf==7.36.2",
        "pyaml==26.7.0",
        "sympy==1.14.0",
        "tqdm==4.70.1",
    ),
    megabytes=50,
    script="to_coreml",
)


@dataclass(frozen=True)
class CoreMlPackage:
    """A package that has been written.

    Attributes:
        path: the folder.
        size: bytes of its files.
        precision: `fp32`, `fp16` or `int8`.
        difference: largest absolute difference of a logit of `CHECKED_IMAGES` images to PyTorch's, by the package's
            operators, or by Core ML on a Mac.
    """

    path: Path
    size: int
    precision: str
    difference: float

    def __str__(self) -> str:
        differs = f"differ from PyTorch by at most {self.difference:.1e}"
        if sys.platform == "darwin":
            return f"{self._head}; {CHECKED_IMAGES} images {differs}"
        return (
            f"{self._head}; its operators, computed one by one, {differs} on {CHECKED_IMAGES} images. Core ML itself "
            "has not run: check on a Mac (docs/edge.md)"
        )

    @property
    def _head(self) -> str:
        return f"{self.path}: {self.size / 2**20:.1f} MiB, {self.precision}"


def example_pixels(size: int) -> np.ndarray:
    """Return an image that any program can make, uint8 (size, size, 3): (31 y + 17 x + 61 c) mod 256."""
    y, x, channel = np.ogrid[:size, :size, :3]
    return ((31 * y + 17 * x + 61 * channel) % 256).astype(np.uint8)


def export_coreml(
    model: nn.Module,
    metadata: WeightsMetadata,
    path: Path,
    *,
    precision: Precision = "fp16",
    tolerance: float | None = None,
    device: torch.device | str = "cpu",
    install: bool = True,
) -> CoreMlPackage:
    """Write a model as a Core ML package that takes one RGB image and returns logits.

    On a Mac, Core ML's logits are compared with PyTorch's. Elsewhere, those that the package's operators define.

    Args:
        model: takes normalised images float32 (N, 3, H, W), returns logits (N, classes).
        metadata: stored in the package.
        path: folder to write, whole or not at all; an earlier package is replaced.
        precision: of weights and arithmetic between quantizers.
        tolerance: largest difference of a logit to PyTorch's that is accepted; None for `Reference.tolerance`.
        device: where PyTorch computes the logits to compare with.
        install: coremltools may be installed if it is not there.

    Raises:
        UserError: coremltools is missing or fails, the package can't be written, or its logits are not PyTorch's.
    """
    check_package_place(path, suffix=SUFFIX, mark="Manifest.json", format_name="Core ML")
    preprocessing = Preprocessing.from_dict(metadata.preprocessing)
    reference = Reference(model, preprocessing, batch_size=CHECKED_IMAGES, device=device)
    if tolerance is None:
        tolerance = reference.tolerance(precision)
    with tempfile.TemporaryDirectory() as scratch, atomic_package(path) as package:
        traced, facts = Path(scratch) / "program.pt2", Path(scratch) / "facts.json"
        with working(f"writing {path.name}"):
            program = export_program(model, preprocessing, takes="pixels")
            save_program(program, traced)
        kind = "int8" if is_quantized(program) else precision
        example = _example_logits(program, preprocessing.image_size)
        facts.write_text(json.dumps(_facts(metadata, kind, precision, example)), encoding="utf-8")
        with working(f"converting to {path.name}"):
            CONVERTER.run("convert", traced, facts, package, install=install)
        with working("comparing with PyTorch"):
            difference = reference.difference(lambda batch: run_coreml(package, batch), takes_bytes=True)
            check_difference(path, difference, tolerance)
    return CoreMlPackage(path, package_size(path), kind, difference)


def run_coreml(package: Path, images: np.ndarray) -> np.ndarray:
    """Return a package's logits float32 (N, classes) of images uint8 (N, H, W, 3): Core ML's on a Mac.

    Elsewhere they are those of its operators, computed one by one.

    Raises:
        UserError: coremltools is missing, or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "images.npy", Path(folder) / "found.npz"
        np.save(given, images)
        CONVERTER.run("run", package, given, found)
        with np.load(found) as arrays:
            return arrays["logits"]


def _example_logits(program: torch.export.ExportedProgram, size: int) -> list[float]:
    pixels = torch.from_numpy(example_pixels(size)).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        logits: list[float] = program.module()(pixels)[0].tolist()
    return logits


def _facts(metadata: WeightsMetadata, kind: str, precision: str, example: list[float]) -> dict[str, object]:
    texts = {
        METADATA_KEY: json.dumps(metadata.to_dict()),
        CLASSES_KEY: "\n".join(metadata.class_names()),
        PRECISION_KEY: kind,
        EXAMPLE_KEY: json.dumps(example),
    }
    if metadata.several_labels:
        texts[THRESHOLDS_KEY] = json.dumps(list(metadata.thresholds))
    side = metadata.preprocessing["image_size"]
    description = f"{metadata.model}: the logits of an RGB image of {side} x {side} pixels"
    return {"precision": precision, "description": description, "metadata": texts}
