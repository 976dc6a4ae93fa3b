"""The gain from distillation on a small set: a model trained from scratch, with and without a teacher.

Of a folder with ``train/<class>/`` and ``val/<class>/``, a seeded sample of each class's images is linked into a folder
of its own. The teacher starts from its ImageNet weights and is fine-tuned on the sample by ``recipes/finetune.yaml``.
The students have no weights to start from, and differ in the seed and the teacher alone. All are judged on the sample
of ``val/``.

``distill.json`` and ``distill.md`` are written after each run; rows that they already hold are not measured again.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from effnet.benchmark.environment import environment
from effnet.inference.evaluate import evaluate
from effnet.recipe import Recipe, read_recipe
from effnet.runtime.errors import UserError
from effnet.runtime.files import write_text
from effnet.training.run import train

FINETUNE = Path(__file__).resolve().parent.parent / "recipes" / "finetune.yaml"
STUDENT: dict[str, Any] = {
    "optimizer": "sgd",
    "lr": 0.05,
    "nesterov": True,
    "weight_decay": 5e-4,
    "label_smoothing": 0.0,
    "warmup": 1.0,
    "bn_momentum": 0.1,
    "dropout": 0.0,
    "augmentation": "none",
    "crop_scale": (0.5, 1.0),
    "mixup": 0.0,
    "batch_size": 32,
}
"""settings of both students"""


@dataclass(frozen=True)
class Plan:
    """Settings of the measurement.

    Attributes:
        data: folder with ``train/`` and ``val/``.
        out: folder for the sample, the runs and the results.
        student, teacher: models.
        images, val_images: images of the sample, over all classes.
        image_size: side in pixels.
        epochs: of the students.
        seeds: number of students of each kind.
    """

    data: Path
    out: Path
    student: str = "efficientnet-b0"
    teacher: str = "efficientnet-lite2"
    images: int = 2000
    val_images: int = 2000
    image_size: int = 96
    epochs: int = 12
    seeds: int = 2


@dataclass(frozen=True)
class Row:
    """Accuracy of one model in percent."""

    model: str
    teacher: str
    seed: int
    top1: float


def measure(plan: Plan) -> list[Row]:
    """Train the teacher and the students that have no row yet, and return all rows."""
    sample = _sampled(plan)
    path = plan.out / "distill.json"
    rows = [Row(**row) for row in json.loads(path.read_text())["rows"]] if path.exists() else []
    wanted = [(plan.teacher, "", 0)]
    for seed in range(plan.seeds):
        wanted += [(plan.student, "", seed), (plan.student, plan.teacher, seed)]
    for model, teacher, seed in wanted:
        if any((row.model, row.teacher, row.seed) == (model, teacher, seed) for row in rows):
            continue
        recipe = _teacher(plan) if model == plan.teacher else _student(plan, teacher, seed)
        rows.append(Row(model, teacher, seed, _accuracy(recipe, sample)))
        content = {"environment": environment(), "plan": _plain(plan), "rows": [asdict(row) for row in rows]}
        write_text(path, json.dumps(content, indent=1) + "\n")
        write_text(plan.out / "distill.md", table(rows))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table, the students' as means over the seeds."""
    lines = ["| model | teacher | top-1 | seeds |", "| --- | --- | --- | --- |"]
    for model, teacher in dict.fromkeys((row.model, row.teacher) for row in rows):
        found = [row.top1 for row in rows if (row.model, row.teacher) == (model, teacher)]
        each = ", ".join(f"{top1:.1f}" for top1 in found)
        lines.append(f"| {model} | {teacher or 'none'} | {mean(found):.1f} % | {each} |")
    return "\n".join(lines) + "\n"


def _teacher(plan: Plan) -> Recipe:
    settings = {"arch": plan.teacher, "image_size": plan.image_size, "workspace": str(plan.out / "teacher")}
    return Recipe().replace({**read_recipe(FINETUNE), **settings, "training_only": True, "use_ema": None})


def _student(plan: Plan, teacher: str, seed: int) -> Recipe:
    settings = {
        "arch": plan.student,
        "image_size": plan.image_size,
        "epochs": plan.epochs,
        "seed": seed,
        "training_only": True,
        "workspace": str(plan.out / f"student-{seed}-{'with' if teacher else 'without'}"),
        "teacher": str(plan.out / "teacher") if teacher else None,
    }
    return Recipe().replace({**STUDENT, **settings})


def _accuracy(recipe: Recipe, sample: Path) -> float:
    train(recipe.replace({"resume": "auto"}), sample)
    checkpoint = str(Path(recipe.run.workspace) / "checkpoint.pth.tar")
    judged = recipe.replace(
        {"resume": checkpoint, "evaluate": True, "training_only": False, "pretrained": False}
    )
    return evaluate(judged, sample)["val.top1"]


def _sampled(plan: Plan) -> Path:
    """Link a sample of the images, as many of each class, into a folder, and return that."""
    folder = plan.out / "sample"
    for split, count in (("train", plan.images), ("val", plan.val_images)):
        classes = sorted(path for path in (plan.data / split).glob("*") if path.is_dir())
        if not classes:
            raise UserError(f"{plan.data / split}: no class folders")
        random = np.random.default_rng(0)
        for of_class in classes:
            files = sorted(of_class.iterdir())
            number = min(len(files), count // len(classes))
            target = folder / split / of_class.name
            target.mkdir(parents=True, exist_ok=True)
            for index in sorted(random.permutation(len(files))[:number]):
                link = target / files[index].name
                if not link.exists():
                    os.symlink(files[index].resolve(), link)
    return folder


def _plain(plan: Plan) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(plan).items()}
