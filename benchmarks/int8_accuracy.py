"""INT8 accuracy of the models whose ImageNet weights come as Python packages, beside NNCF's quantization.

Images of a folder with ``val/<wnid>/`` and ``wnids.txt`` are sorted by path. 100 of them, evenly spaced (images 0,
n/100, 2n/100, ...), calibrate in batches of 20; the others are judged as they are, mirrored, and shifted by 16 pixels.
Each model, target engine, weight width and rounding has a row: correct answers of FP32, of the fake-quantized model in
PyTorch and of its ONNX file in the target's engine; how many answers of the file are FP32's; and how far its
probabilities are from FP32's, as half the sum of absolute differences (0 for the same, 1 for others altogether).

``int8-accuracy.json`` and ``int8-accuracy.md`` are written after each row; rows that they already hold are not measured
again.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from effnet import create_model
from effnet.benchmark.environment import environment
from effnet.data import Batch
from effnet.data.decode import EncodedImage
from effnet.data.preprocessing import Preprocessing
from effnet.data.transforms import ValTransform
from effnet.export.onnx import export_onnx
from effnet.export.openvino import compile_openvino, read_openvino
from effnet.export.trained import ModelChoice, TrainedModel, open_trained
from effnet.inference.engine import Engine, engine_of, open_engine
from effnet.models import model_config
from effnet.quantization.calibrate import calibrate
from effnet.quantization.placement import place_quantizers
from effnet.recipe import QuantizationSettings
from effnet.recipe.choices import TargetName
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes
from effnet.runtime.processor import vector_extensions
from effnet.training.step import Normalise

CPU = torch.device("cpu")
TARGETS: tuple[TargetName, ...] = ("onnxruntime", "openvino")
TO_CALIBRATE = 100
BATCH_SIZE = 20
SHIFT = 16
COLUMNS = (
    "model",
    "engine",
    "weights",
    "method",
    "FP32",
    "simulated",
    "engine's",
    "FP32, 3 views",
    "engine's, 3 views",
    "same answer (3 views)",
    "distance",
)

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A way to quantize a model.

    Attributes:
        target: engine that it is for, and that judges it.
        weight_bits: 7 or 8.
        method: rounding of the weights, or ``NNCF``.
    """

    target: TargetName
    weight_bits: int
    method: str


@dataclass(frozen=True)
class Split:
    """Images for calibration and for validation, uint8 (N, size, size, 3), and the class indices of the latter."""

    to_calibrate: Pixels
    to_validate: Pixels
    labels: Labels

    @cached_property
    def views(self) -> Pixels:
        """The images for validation, then mirrored, then shifted, (3N, size, size, 3)."""
        padded = np.pad(self.to_validate, ((0, 0), (0, SHIFT), (0, SHIFT), (0, 0)), mode="reflect")
        return np.concatenate([self.to_validate, self.to_validate[:, :, ::-1], padded[:, SHIFT:, SHIFT:]])


@dataclass(frozen=True)
class Row:
    """Answers of one quantized model.

    Attributes:
        model, target, weight_bits, method: see `Case`.
        images: number of images; each has three views.
        fp32, fake_quantized, engine: correct answers for the images as they are; None where there is no such model.
        fp32_views, engine_views: correct answers for all views.
        same_answers: share of the images for which the engine's answer is FP32's, in percent.
        same_answers_views: the same of all views.
        distance: mean distance of the probabilities of all views.
    """

    model: str
    target: TargetName
    weight_bits: int
    method: str
    images: int
    fp32: int
    fake_quantized: int | None
    engine: int
    fp32_views: int
    engine_views: int
    same_answers: float
    same_answers_views: float
    distance: float


def read_split(folder: Path, preprocessing: Preprocessing) -> Split:
    """Decode the photographs with a model's preprocessing and split them."""
    wnids = (folder / "wnids.txt").read_text(encoding="utf-8").split()
    files = sorted((folder / "val").glob("*/*"))
    transform = ValTransform(preprocessing)
    pixels = np.stack([transform(EncodedImage(file)) for file in files])
    labels = np.array([wnids.index(file.parent.name) for file in files])
    calibrates = np.zeros(len(files), dtype=bool)
    calibrates[[index * len(files) // TO_CALIBRATE for index in range(TO_CALIBRATE)]] = True
    return Split(pixels[calibrates], pixels[~calibrates], labels[~calibrates])


def probabilities(engine: Engine, images: Pixels) -> Probabilities:
    """Return the probabilities of each image, float32 (N, classes)."""
    parts = range(0, len(images), BATCH_SIZE)
    return np.concatenate([engine(images[first : first + BATCH_SIZE]) for first in parts])


def quantized(name: str, case: Case, images: Pixels) -> TrainedModel:
    """Return the model quantized for an engine and calibrated on images, uint8 (N, size, size, 3)."""
    model = create_model(model_config(name).twin, weights="google")
    assert model.metadata is not None
    place_quantizers(model, case.target, reduce_range=case.weight_bits == 7)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    batches = [
        Batch(part, torch.zeros(len(part)), torch.arange(len(part))) for part in pixels.split(BATCH_SIZE)
    ]
    calibrate(
        model,
        iter(batches),
        Preprocessing.from_dict(model.metadata.preprocessing),
        Precision(None, CPU),
        Processes.alone(CPU),
        QuantizationSettings(target=case.target, rounding="gptq" if case.method == "gptq" else "nearest"),
    )
    return TrainedModel(model.eval(), model.metadata)


def measure(name: str, folder: Path, cases: Sequence[Case], nncf: Path | None) -> Iterator[Row]:
    """Yield the rows of a model.

    Args:
        name: the model.
        folder: the photographs.
        cases: a row for each.
        nncf: Python of an environment with NNCF, for the cases of this method.
    """
    in_float = open_trained(ModelChoice(arch=name, device="cpu"))
    split = read_split(folder, in_float.preprocessing)
    fp32 = probabilities(engine_of(in_float, "torch", CPU, "fp32"), split.views)
    for case in cases:
        with tempfile.TemporaryDirectory() as temporary:
            if case.method == "NNCF":
                assert nncf is not None
                simulated, found = None, _by_nncf(nncf, in_float, split, Path(temporary))
            else:
                simulated, found = _by_effnet(
                    quantized(name, case, split.to_calibrate), case, split, temporary
                )
        yield _row(name, case, split.labels, fp32, simulated, found)


def _by_effnet(
    trained: TrainedModel, case: Case, split: Split, folder: str
) -> tuple[Probabilities, Probabilities]:
    path = Path(folder) / "model.onnx"
    export_onnx(trained.model, trained.metadata, path, target=case.target)
    engine = open_engine(ModelChoice(weights=path, device="cpu"), case.target)
    simulated = probabilities(engine_of(trained, "torch", CPU, "fp32"), split.to_validate)
    return simulated, probabilities(engine, split.views)


def _by_nncf(python: Path, in_float: TrainedModel, split: Split, folder: Path) -> Probabilities:
    """Return the probabilities of NNCF's default quantization, calibrated on the same images, in OpenVINO."""
    normalise = Normalise(in_float.preprocessing)

    def normalised(images: Pixels) -> npt.NDArray[np.float32]:
        values: npt.NDArray[np.float32] = (
            normalise(torch.from_numpy(images).permute(0, 3, 1, 2)).contiguous().numpy()
        )
        return values

    export_onnx(in_float.model, in_float.metadata, folder / "model.onnx", target="openvino")
    np.save(folder / "images.npy", normalised(split.to_calibrate))
    script = Path(__file__).with_name("nncf_quantize.py")
    files = (folder / name for name in ("model.onnx", "images.npy", "model.xml"))
    subprocess.run([python, script, *files], check=True, capture_output=True)
    model = compile_openvino(read_openvino(folder / "model.xml")[0])
    parts = range(0, len(split.views), BATCH_SIZE)
    logits = [model(normalised(split.views[first : first + BATCH_SIZE]))[0] for first in parts]
    found: Probabilities = torch.from_numpy(np.concatenate(logits)).softmax(1).numpy()
    return found


def _row(
    name: str,
    case: Case,
    labels: Labels,
    fp32: Probabilities,
    simulated: Probabilities | None,
    found: Probabilities,
) -> Row:
    count, repeated = len(labels), np.tile(labels, 3)

    def right(values: Probabilities) -> int:
        return int((values.argmax(1) == repeated[: len(values)]).sum())

    same = fp32.argmax(1) == found.argmax(1)
    differences = np.abs(fp32 - found).sum(1) / 2
    return Row(
        name,
        case.target,
        case.weight_bits,
        case.method,
        count,
        right(fp32[:count]),
        None if simulated is None else right(simulated),
        right(found[:count]),
        right(fp32),
        right(found),
        100 * float(same[:count].mean()),
        100 * float(same.mean()),
        float(differences.mean()),
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    for row in sorted(rows, key=lambda row: (row.model, row.target, -row.weight_bits, row.method)):
        cells = [
            row.model.removeprefix("efficientnet-").capitalize(),
            row.target,
            f"{row.weight_bits} bits",
            row.method,
            row.fp32,
            "" if row.fake_quantized is None else row.fake_quantized,
            row.engine,
            row.fp32_views,
            row.engine_views,
            f"{row.same_answers:.1f} % ({row.same_answers_views:.1f} %)",
            f"{row.distance:.4f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def read_rows(folder: Path) -> list[Row]:
    """Return the rows of earlier runs."""
    file = folder / "int8-accuracy.json"
    return (
        [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))["rows"]] if file.exists() else []
    )


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Write the rows measured so far as JSON and Markdown."""
    content = {
        "benchmark": "int8_accuracy",
        "environment": environment(),
        "cpu_flags": vector_extensions(),
        "to_calibrate": TO_CALIBRATE,
        "rows": [asdict(row) for row in rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "int8-accuracy.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "int8-accuracy.md").write_text(table(rows), encoding="utf-8")


def measure_missing(
    data: Path, out: Path, models: Sequence[str], weight_bits: Sequence[int], nncf: Path | None = None
) -> list[Row]:
    """Measure the rows that the folder of results lacks, and write each as soon as it is measured.

    Args:
        data: folder with ``val/<wnid>/`` and ``wnids.txt``.
        out: folder of results.
        models: names among `benchmarks.commands.int8_accuracy.MODELS`.
        weight_bits: 7, 8 or both.
        nncf: Python of an environment with NNCF and OpenVINO; None for no rows of it.

    Returns:
        All rows, those of earlier runs first.
    """
    rows = read_rows(out)
    done = {(row.model, Case(row.target, row.weight_bits, row.method)) for row in rows}
    cases = [
        Case(target, bits, method)
        for target in TARGETS
        for bits in weight_bits
        for method in ("gptq", "nearest")
    ]
    cases += [Case("openvino", 8, "NNCF")] if nncf else []
    for name in models:
        missing = [case for case in cases if (name, case) not in done]
        for row in measure(name, data, missing, nncf) if missing else ():
            rows.append(row)
            write_rows(out, rows)
    return rows
