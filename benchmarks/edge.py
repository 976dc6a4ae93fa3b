"""Formats for phones: size, agreement with PyTorch on photographs, and latency in the format's own runtime.

Images of a folder with ``val/<wnid>/`` and ``wnids.txt`` are split as for ``int8-accuracy``: 100 calibrate, the others
are answered one by one. Each format has a row in float and one in INT8: the file's size, answers that equal those of
the float model in PyTorch and of the model that was exported, correct answers, and the median latency of an image.

``edge.json`` and ``edge.md`` are written after each row; rows that they already hold are not measured again.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.int8_accuracy import Case, Labels, Pixels, probabilities, quantized, read_split
from effnet.benchmark.environment import environment
from effnet.export.edge.formats import EdgeFormat, export_edge, run_edge
from effnet.export.edge.table import EDGE_FORMATS
from effnet.export.trained import ModelChoice, TrainedModel, open_trained
from effnet.inference.engine import engine_of
from effnet.training.step import Normalise

CPU = torch.device("cpu")
WEIGHT_BITS = 8
COLUMNS = ("format", "precision", "MiB", "as PyTorch's FP32", "as exported", "correct", "ms")


@dataclass(frozen=True)
class Row:
    """One file: its bytes, equal and correct answers, and the median milliseconds of an image."""

    format: str
    precision: str
    size: int
    images: int
    as_fp32: int
    as_exported: int
    correct: int
    milliseconds: float


def measure(form: EdgeFormat, trained: TrainedModel, fp32: Labels, images: Pixels, labels: Labels) -> Row:
    """Export a model, and return the row of its file."""
    exported = probabilities(engine_of(trained, "torch", CPU, "fp32"), images).argmax(1)
    normalised = Normalise(trained.preprocessing)(torch.from_numpy(images).permute(0, 3, 1, 2)).contiguous()
    with tempfile.TemporaryDirectory() as folder:
        written = export_edge(form, trained.model, trained.metadata, Path(folder) / f"model{form.suffix}")
        answered, seconds = run_edge(form, written.path, normalised.numpy())
    found = answered.argmax(1)
    return Row(
        form.converter.format,
        written.precision,
        written.size,
        len(images),
        int((found == fp32).sum()),
        int((found == exported).sum()),
        int((found == labels).sum()),
        1000 * float(np.median(seconds)),
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
    for row in rows:
        cells = (
            row.format,
            row.precision,
            f"{row.size / 2**20:.1f}",
            f"{100 * row.as_fp32 / row.images:.1f} %",
            f"{100 * row.as_exported / row.images:.1f} %",
            f"{row.correct} of {row.images}",
            f"{row.milliseconds:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def measure_missing(data: Path, out: Path, model: str) -> list[Row]:
    """Measure the rows that the folder of results lacks, and write each as soon as it is measured.

    Args:
        data: folder with ``val/<wnid>/`` and ``wnids.txt``.
        out: folder of results.
        model: one of the Lite models.

    Returns:
        All rows, those of earlier runs first.
    """
    file = out / "edge.json"
    rows = (
        [Row(**row) for row in json.loads(file.read_text(encoding="utf-8"))["rows"]] if file.exists() else []
    )
    done = {(row.format, row.precision) for row in rows}
    in_float = open_trained(ModelChoice(arch=model, device="cpu"))
    split = read_split(data, in_float.preprocessing)
    fp32 = probabilities(engine_of(in_float, "torch", CPU, "fp32"), split.to_validate).argmax(1)
    out.mkdir(parents=True, exist_ok=True)
    for target, form in EDGE_FORMATS.items():
        for precision in ("fp32", "int8"):
            if (target, precision) in done:
                continue
            trained = in_float
            if precision == "int8":
                trained = quantized(model, Case(target, WEIGHT_BITS, "gptq"), split.to_calibrate)
            rows.append(measure(form, trained, fp32, split.to_validate, split.labels))
            content = {
                "benchmark": "edge",
                "environment": environment(),
                "model": model,
                "rows": [asdict(row) for row in rows],
            }
            file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            (out / "edge.md").write_text(table(rows), encoding="utf-8")
    return rows
