"""Several labels on real images: photographs in pairs, pasted side by side, of which both labels are to be found.

Of a folder with ``val/<class>/`` and a photograph or more in each, pairs are drawn by a seed. EfficientNet-Lite0 is
trained on most of them from its ImageNet weights and judged on the others, whose photographs it has seen in other
pairs. The model is then exported to ONNX and compared with the original: probabilities, thresholds, metrics.
"""

import csv
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import effnet
from effnet.inference.evaluate import evaluate
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.files import write_text

_SIDE = 192
_VAL_EVERY = 5
_COMPARED = 64


@dataclass(frozen=True)
class Plan:
    """Settings of the measurement.

    Attributes:
        data: folder with ``val/<class>/``.
        out: folder for the pairs, the run and the result.
        pairs: number of pairs.
        image_size: side in pixels.
        epochs: of the training.
        seed: seed of the pairs and of the training.
    """

    data: Path
    out: Path
    pairs: int = 2000
    image_size: int = 160
    epochs: int = 6
    seed: int = 0


def benchmark_pairs(plan: Plan) -> dict[str, Any]:
    """Train, judge, export and compare; write ``pairs.json``.

    Returns:
        The plan, metrics of the pairs that were not trained on, and differences of the exported model, as plain values.

    Raises:
        UserError: a folder with less than two photographs.
    """
    table = write_pairs(plan)
    run = effnet.fit(
        table,
        recipe=str(Path(__file__).resolve().parent.parent / "recipes" / "finetune.yaml"),
        label_separator="|",
        image_size=plan.image_size,
        resize=plan.image_size,
        crop_scale=(0.8, 1.0),
        epochs=plan.epochs,
        seed=plan.seed,
        workspace=str(plan.out / "run"),
    )
    path = run.export(plan.out / "pairs.onnx")
    exported = effnet.load(path)
    files = [str(file) for file in sorted(table.parent.glob("*.jpg"))[:_COMPARED]]
    difference = np.abs(exported.probabilities(files) - run.classifier.probabilities(files)).max()
    own, other = run.classifier.engine.metadata.thresholds, exported.engine.metadata.thresholds
    settings = {"evaluate": True, "pretrained_from_file": str(path), "label_separator": "|"}
    metrics = evaluate(Recipe().replace({**settings, "workspace": str(plan.out / "onnx")}), table)
    names = ("val.average_precision", "val.auroc", "val.f1", "val.precision", "val.recall", "val.images")
    result = {
        "plan": {name: str(value) for name, value in asdict(plan).items()},
        "labels": len(own),
        **{name: metrics[name] for name in names},
        "largest_difference_of_a_probability": float(difference),
        "thresholds_in_the_file": list(other) == list(own),
    }
    write_text(plan.out / "pairs.json", json.dumps(result, indent=1) + "\n")
    return result


def write_pairs(plan: Plan) -> Path:
    """Write pairs as JPEG files, and a table of them with columns path, labels and split; return the table."""
    photographs = sorted((plan.data / "val").glob("*/*"))
    if len({file.parent.name for file in photographs}) < 2:
        raise UserError(f"{plan.data}/val: needs photographs of two classes or more")
    folder = plan.out / "pairs"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(plan.seed)
    halves = [_half(file) for file in photographs]
    with (folder / "pairs.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["path", "labels", "split"])
        drawn = [random.choice(len(photographs), 2, replace=False) for _ in range(plan.pairs)]
        trained = {int(i) for number, pair in enumerate(drawn) if number % _VAL_EVERY for i in pair}
        for number, (left, right) in enumerate(drawn):
            image = Image.new("RGB", (_SIDE, _SIDE))
            image.paste(halves[left], (0, 0))
            image.paste(halves[right], (_SIDE // 2, 0))
            image.save(folder / f"{number:05d}.jpg", quality=90)
            labels = "|".join(sorted({photographs[i].parent.name for i in (left, right)}))
            # Judged are photographs that other pairs teach.
            is_val = number % _VAL_EVERY == 0 and {int(left), int(right)} <= trained
            writer.writerow([f"{number:05d}.jpg", labels, "val" if is_val else "train"])
    return folder / "pairs.csv"


def _half(file: Path) -> Image.Image:
    """Return the middle of a photograph, of half the width of a pair."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    width, height = image.size
    part = min(width, height // 2)
    left, top = (width - part) // 2, (height - min(height, 2 * part)) // 2
    box = (left, top, left + part, top + min(height, 2 * part))
    return image.resize((_SIDE // 2, _SIDE), Image.Resampling.BICUBIC, box)
