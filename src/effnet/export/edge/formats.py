"""Files for phones and small devices: converted in an environment apart, written if their own runtime agrees."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from effnet.data.preprocessing import Preprocessing
from effnet.export.edge.appended import append_facts
from effnet.export.edge.environment import Converter
from effnet.export.edge.program import export_program, is_quantized, save_program
from effnet.export.reference import Reference, check_difference
from effnet.runtime.disk import check_writable
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_path
from effnet.runtime.progress import working
from effnet.weights import WeightsMetadata

CHECKED_IMAGES = 8
BATCH_KEY, BYTES_KEY = "batch_size", "takes_bytes"
"""metadata of the input: the number of images, and ``true`` for bytes; files without them take a normalised image"""


@dataclass(frozen=True)
class EdgeFormat:
    """A format of one file.

    Attributes:
        converter: writes the file, and runs it.
        suffix: of the file's name.
        integer_weights: the converter wants quantized weights as integers, not rounded by the program.
    """

    converter: Converter
    suffix: str
    integer_weights: bool


@dataclass(frozen=True)
class EdgeFile:
    """A file that has been written.

    Attributes:
        path: the file.
        size: its bytes.
        precision: `fp32` or `int8`.
        batch_size: number of images that it takes.
        images: number of images whose logits were compared.
        difference: largest absolute difference of a logit to PyTorch's.
    """

    path: Path
    size: int
    precision: str
    batch_size: int
    images: int
    difference: float

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.size / 2**20:.1f} MiB, {self.precision}, batches of {self.batch_size}; {self.images} "
            f"images differ from PyTorch by at most {self.difference:.1e}"
        )


def export_edge(
    form: EdgeFormat,
    model: nn.Module,
    metadata: WeightsMetadata,
    path: Path,
    *,
    batch_size: int = 1,
    preprocessing_in_graph: bool = False,
    tolerance: float | None = None,
    device: torch.device | str = "cpu",
    install: bool = True,
) -> EdgeFile:
    """Write a model in a format, and compare the logits of its own runtime with PyTorch's.

    A quantized model computes in integers with the ranges that it was calibrated with.

    Args:
        form: the format.
        model: takes normalised images float32 (N, 3, H, W), returns logits (N, classes).
        metadata: stored in the file, as a zip archive at its end: `read_facts`.
        path: file to write, atomically.
        batch_size: number of images that the file takes.
        preprocessing_in_graph: take uint8 (N, H, W, 3) RGB images and normalise them in the graph.
        tolerance: largest difference of a logit to PyTorch's that is accepted; None for `Reference.tolerance`.
        device: where PyTorch computes the logits to compare with.
        install: the converter may be installed if it is not there.

    Raises:
        UserError: the converter is missing or fails, the file can't be written, or its logits are not PyTorch's.
    """
    if path.suffix != form.suffix:
        raise UserError(f"{path}: files of this format end in {form.suffix}")
    check_writable(path, make_folder=True)
    preprocessing = Preprocessing.from_dict(metadata.preprocessing)
    images = -(-CHECKED_IMAGES // batch_size) * batch_size
    reference = Reference(model, preprocessing, batch_size=images, device=device)
    if tolerance is None:
        tolerance = reference.tolerance("fp32")
    with tempfile.TemporaryDirectory() as folder:
        traced, converted = Path(folder) / "program.pt2", Path(folder) / f"converted{form.suffix}"
        with working(f"writing {path.name}"):
            program = export_program(
                model,
                preprocessing,
                batch_size=batch_size,
                takes="bytes" if preprocessing_in_graph else "normalised",
                integer_weights=form.integer_weights,
            )
            save_program(program, traced)
        precision = "int8" if is_quantized(program) else "fp32"
        with working(f"converting to {path.name}"):
            form.converter.run("convert", traced, converted, install=install)
        with atomic_path(path, make_folder=True) as temporary, working("comparing with PyTorch"):
            temporary.write_bytes(converted.read_bytes())
            taken = {BATCH_KEY: json.dumps(batch_size), BYTES_KEY: json.dumps(preprocessing_in_graph)}
            append_facts(temporary, metadata, precision, taken)
            difference = reference.difference(
                lambda batch: run_edge(form, temporary, batch)[0], takes_bytes=preprocessing_in_graph
            )
            check_difference(path, difference, tolerance)
    return EdgeFile(path, path.stat().st_size, precision, batch_size, images, difference)


def run_edge(
    form: EdgeFormat, path: Path, images: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Return the logits of images, computed by the format's own runtime in its environment, and each batch's seconds.

    Args:
        form: the format.
        path: file of `export_edge`.
        images: what the file takes; their number is a multiple of its batch size.

    Raises:
        UserError: the runtime is missing, or fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "images.npy", Path(folder) / "found.npz"
        np.save(given, images)
        form.converter.run("run", path, given, found)
        with np.load(found) as arrays:
            return arrays["logits"], arrays["seconds"]
