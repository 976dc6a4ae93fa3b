"""ncnn: a folder with a network's .param and .bin, which pnnx converts."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from effnet.data.preprocessing import Preprocessing
from effnet.export.edge.appended import fact_files
from effnet.export.edge.environment import Converter
from effnet.export.edge.formats import CHECKED_IMAGES
from effnet.export.edge.package import atomic_package, check_package_place, package_size
from effnet.export.edge.program import export_program, is_quantized, save_program
from effnet.export.facts import PRECISION_KEY
from effnet.export.reference import Precision, Reference, check_difference
from effnet.runtime.errors import UserError
from effnet.runtime.progress import working
from effnet.weights import WeightsMetadata

SUFFIX = ".ncnn"
PARAM = "model.param"

CONVERTER = Converter(
    "ncnn",
    ("ncnn==1.0.20261020", "pnnx==20261020", "mpmath==1.3.0", "sympy==1.14.0"),
    megabytes=120,
    script="to_ncnn",
)


@dataclass(frozen=True)
class NcnnPackage:
    """A folder that has been written.

    Attributes:
        path: the folder.
        size: bytes of its files.
        precision: of the weights, `fp32` or `fp16`.
        difference: largest absolute difference of a logit of `CHECKED_IMAGES` images to PyTorch's.
    """

    path: Path
    size: int
    precision: str
    difference: float

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.size / 2**20:.1f} MiB, {self.precision}; {CHECKED_IMAGES} images differ from "
            f"PyTorch by at most {self.difference:.1e}"
        )


def export_ncnn(
    model: nn.Module,
    metadata: WeightsMetadata,
    path: Path,
    *,
    precision: Precision = "fp32",
    tolerance: float | None = None,
    device: torch.device | str = "cpu",
    install: bool = True,
) -> NcnnPackage:
    """Write a model for ncnn that takes one RGB image and returns logits, and compare ncnn's logits with PyTorch's.

    Args:
        model: takes normalised images float32 (N, 3, H, W), returns logits (N, classes); without quantizers.
        metadata: stored beside the network.
        path: folder to write, whole or not at all; an earlier one is replaced.
        precision: of the weights, `fp32` or `fp16`.
        tolerance: largest difference of a logit to PyTorch's that is accepted; None for `Reference.tolerance`.
        device: where PyTorch computes the logits to compare with.
        install: ncnn and pnnx may be installed if they are not there.

    Raises:
        UserError: the model has quantizers, the converter is missing or fails, the folder can't be written, or ncnn's
            logits are not PyTorch's.
    """
    check_package_place(path, suffix=SUFFIX, mark=PARAM, format_name="ncnn")
    preprocessing = Preprocessing.from_dict(metadata.preprocessing)
    reference = Reference(model, preprocessing, batch_size=CHECKED_IMAGES, device=device)
    if tolerance is None:
        tolerance = reference.tolerance(precision)
    with tempfile.TemporaryDirectory() as scratch, atomic_package(path) as package:
        with working(f"writing {path.name}"):
            program = export_program(model, preprocessing, takes="pixels")
            if is_quantized(program):
                raise UserError(
                    f"{metadata.model} has quantizers, which ncnn's converter does not read; give float weights, of "
                    "which ncnn's own tools make INT8 (docs/edge.md)"
                )
            save_program(program, traced := Path(scratch) / "program.pt2")
        with working(f"converting to {path.name}"):
            CONVERTER.run("convert", traced, precision, package, install=install)
        for name, text in {**fact_files(metadata), PRECISION_KEY: precision}.items():
            (package / name).write_text(text, encoding="utf-8")
        with working("comparing with PyTorch"):
            difference = reference.difference(lambda batch: run_ncnn(package, batch), takes_bytes=True)
            check_difference(path, difference, tolerance)
    return NcnnPackage(path, package_size(path), precision, difference)


def run_ncnn(package: Path, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return ncnn's logits float32 (N, classes) of RGB images uint8 (N, H, W, 3), in the package's precision.

    Raises:
        UserError: ncnn is missing, or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "images.npy", Path(folder) / "found.npz"
        np.save(given, images)
        CONVERTER.run("run", package, given, found)
        with np.load(found) as arrays:
            logits: npt.NDArray[np.float32] = arrays["logits"]
            return logits
