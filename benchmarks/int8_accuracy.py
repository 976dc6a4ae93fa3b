"""INT8 accuracy of the models whose ImageNet weights come as Python packages.

Images of a folder with ``val/<wnid>/`` and ``wnids.txt`` are sorted by path. 100 of them, evenly spaced (images 0,
n/100, 2n/100, ...), calibrate in batches of 20; accuracy is measured on all others. Each combination of model, target
engine and weight width has a row: correct answers of FP32, of the fake-quantized model in PyTorch, and of its ONNX file
in onnxruntime and in OpenVINO; and the number of answers of each file that equal the fake-quantized model's.

``int8-accuracy.json`` and ``int8-accuracy.md`` are written after each row; rows that they already hold are not measured
again.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
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

CPU = torch.device("cpu")
TARGETS: tuple[TargetName, ...] = ("onnxruntime", "openvino")
ENGINES = ("onnxruntime", "openvino")
TO_CALIBRATE = 100
BATCH_SIZE = 20
COLUMNS = ("model", "image size", "FP32", "weights", "target", "fake-quantized", "onnxruntime", "OpenVINO")

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Images for calibration and for validation, uint8 (N, size, size, 3), and the class indices of the latter."""

    to_calibrate: Pixels
    to_validate: Pixels
    labels: Labels


@dataclass(frozen=True)
class Row:
    """Correct answers of one quantized model, and answers that equal the fake-quantized model's."""

    model: str
    image_size: int
    images: int
    fp32: int
    target: str
    weight_bits: int
    fake_quantized: int
    engines: dict[str, int]
    same_answers: dict[str, int]


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


def answers(engine: Engine, images: Pixels) -> Labels:
    """Return the predicted class of each image, int64 (N,)."""
    parts = range(0, len(images), BATCH_SIZE)
    return np.concatenate([engine(images[first : first + BATCH_SIZE]).argmax(1) for first in parts])


def quantized(name: str, target: TargetName, weight_bits: int, images: Pixels) -> TrainedModel:
    """Return the model quantized for an engine and calibrated on images, uint8 (N, size, size, 3)."""
    model = create_model(model_config(name).twin, weights="google")
    assert model.metadata is not None
    place_quantizers(model, target, reduce_range=weight_bits == 7)
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
        QuantizationSettings(target=target),
    )
    return TrainedModel(model.eval(), model.metadata)


def measure(name: str, folder: Path, cases: Sequence[tuple[int, TargetName]]) -> Iterator[Row]:
    """Yield the rows of a model, one for each pair of weight width and target engine."""
    in_float = open_trained(ModelChoice(arch=name, device="cpu"))
    split = read_split(folder, in_float.preprocessing)
    fp32 = answers(engine_of(in_float, "torch", CPU, "fp32"), split.to_validate)

    def right(classes: Labels) -> int:
        return int((classes == split.labels).sum())

    for bits, target in cases:
        trained = quantized(name, target, bits, split.to_calibrate)
        simulated = answers(engine_of(trained, "torch", CPU, "fp32"), split.to_validate)
        on_engines = _on_engines(trained, target, split.to_validate)
        yield Row(
            name,
            in_float.preprocessing.image_size,
            len(split.labels),
            right(fp32),
            target,
            bits,
            right(simulated),
            {engine: right(classes) for engine, classes in on_engines.items()},
            {engine: int((classes == simulated).sum()) for engine, classes in on_engines.items()},
        )


def _on_engines(trained: TrainedModel, target: TargetName, images: Pixels) -> dict[str, Labels]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(trained.model, trained.metadata, path, target=target)
        choice = ModelChoice(weights=path, device="cpu")
        return {engine: answers(open_engine(choice, engine), images) for engine in ENGINES}


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown; in brackets the share of answers that equal the fake-quantized model's."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    for row in rows:
        engines = [
            f"{row.engines[name]} ({100 * row.same_answers[name] / row.images:.1f} %)" for name in ENGINES
        ]
        cells = [
            row.model.removeprefix("efficientnet-").capitalize(),
            row.image_size,
            f"{row.fp32} ({100 * row.fp32 / row.images:.1f} %)",
            f"{row.weight_bits} bits",
            row.target,
            row.fake_quantized,
            *engines,
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


def measure_missing(data: Path, out: Path, models: Sequence[str], weight_bits: Sequence[int]) -> list[Row]:
    """Measure the rows that the folder of results lacks, and write each as soon as it is measured.

    Args:
        data: folder with ``val/<wnid>/`` and ``wnids.txt``.
        out: folder of results.
        models: names among `benchmarks.commands.int8_accuracy.MODELS`.
        weight_bits: 7, 8 or both.

    Returns:
        All rows, those of earlier runs first.
    """
    rows = read_rows(out)
    done = {(row.model, row.weight_bits, row.target) for row in rows}
    for name in models:
        cases = [
            (bits, target) for bits in weight_bits for target in TARGETS if (name, bits, target) not in done
        ]
        for row in measure(name, data, cases) if cases else ():
            rows.append(row)
            write_rows(out, rows)
    return rows
