"""Training on unbalanced classes, with each of the settings against it, judged by balanced accuracy.

Of a folder with ``train/<class>/`` and ``val/<class>/``, class i, from 0, gets 200 * 0.6^i training images, and the
same number of validation images as each other class. EfficientNet-Lite0 is fine-tuned from its ImageNet weights by
``recipes/finetune.yaml``; what differs is one setting and the seed, which also draws the images.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

import effnet
from effnet.runtime.errors import UserError
from effnet.runtime.files import write_text

KINDS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "logit-adjustment": {"logit_adjustment": 1.0},
    "class-weights": {"class_weights": "auto"},
    "balanced": {"sampler": "balanced"},
    "focal": {"loss": "focal"},
}
"""settings of each kind of training"""


@dataclass(frozen=True)
class Plan:
    """Settings of the measurement.

    Attributes:
        data: folder with ``train/`` and ``val/``.
        out: folder for the images, the runs and the result.
        kinds: keys of `KINDS`.
        seeds: number of runs of each kind.
        image_size: side in pixels.
        val_images: validation images of each class.
    """

    data: Path
    out: Path
    kinds: Sequence[str] = tuple(KINDS)
    seeds: int = 3
    image_size: int = 96
    val_images: int = 200


def benchmark_unbalanced(plan: Plan) -> dict[str, list[float]]:
    """Train each kind with each seed; write ``unbalanced.json`` after each run, and skip runs that it holds.

    Returns:
        Balanced accuracy by kind, one for each seed.

    Raises:
        UserError: a class with fewer images than are wanted.
    """
    file = plan.out / "unbalanced.json"
    results: dict[str, list[float]] = json.loads(file.read_text()) if file.is_file() else {}
    for seed in range(plan.seeds):
        folder = _drawn(plan, seed)
        for kind in plan.kinds:
            done = results.setdefault(kind, [])
            if len(done) > seed:
                continue
            done.append(_measured(plan, folder, kind, seed))
            write_text(file, json.dumps(results, indent=1) + "\n")
    return {kind: results[kind][: plan.seeds] for kind in plan.kinds}


def table(results: Mapping[str, Sequence[float]]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| training | balanced accuracy | deviation |", "| --- | --- | --- |"]
    for kind, values in results.items():
        spread = stdev(values) if len(values) > 1 else 0.0
        lines.append(f"| {kind} | {fmean(values):.3f} | {spread:.3f} |")
    return "\n".join(lines)


def _measured(plan: Plan, folder: Path, kind: str, seed: int) -> float:
    run = effnet.fit(
        folder,
        recipe=str(Path(__file__).resolve().parent.parent / "recipes" / "finetune.yaml"),
        image_size=plan.image_size,
        seed=seed,
        training_only=True,
        workspace=str(plan.out / f"{kind}-{seed}"),
        **KINDS[kind],
    )
    return float(run.evaluate()["val.balanced_accuracy"])


def _drawn(plan: Plan, seed: int) -> Path:
    """Return a folder with links to the images of a seed."""
    target = plan.out / f"images-{seed}"
    classes = sorted(entry.name for entry in (plan.data / "train").iterdir() if entry.is_dir())
    for number, name in enumerate(classes):
        wanted = {"train": max(2, round(200 * 0.6**number)), "val": plan.val_images}
        for split, count in wanted.items():
            files = sorted((plan.data / split / name).iterdir())
            if len(files) < count:
                raise UserError(f"{plan.data / split / name}: has {len(files)} images, {count} are needed")
            (target / split / name).mkdir(parents=True, exist_ok=True)
            for index in np.random.default_rng((seed, number)).permutation(len(files))[:count]:
                link = target / split / name / files[index].name
                if not link.exists():
                    os.symlink(files[index].resolve(), link)
    return target
