"""Facts that a recipe's open settings follow from, collected from the model's row, the weights and the machine."""

from dataclasses import fields
from typing import cast

from effnet.data.workers import worker_count
from effnet.models import model_config
from effnet.recipe import Arithmetic, Facts, ModelFacts, Recipe, WeightsFacts
from effnet.recipe.settings import RunSettings
from effnet.runtime.errors import UserError
from effnet.runtime.processor import sums_overflow
from effnet.weights import WeightsMetadata


def facts_of(
    recipe: Recipe,
    *,
    precision: str,
    num_classes: int,
    world_size: int = 1,
    metadata: WeightsMetadata | None = None,
    resume: str | None = None,
    several_labels: bool = False,
) -> Facts:
    """Return the facts of a run, for `Recipe.resolve`.

    Args:
        recipe: settings as given; names the model.
        precision: arithmetic of the run, as `resolve_precision` returns it.
        num_classes: classes of the data.
        world_size: processes of the run.
        metadata: of the weights that the run starts from; None for fresh ones.
        resume: checkpoint that the run goes on from; None for none.
        several_labels: the images, or those that the weights were trained on, may have several labels.

    Raises:
        UserError: unknown model.
    """
    row = model_config(recipe.model.arch)
    return Facts(
        ModelFacts(**{field.name: getattr(row, field.name) for field in fields(ModelFacts)}),
        num_classes,
        world_size,
        worker_count(None, world_size),
        cast(Arithmetic, precision),
        sums_overflow(),
        None if metadata is None else _weights_facts(metadata),
        resume,
        several_labels,
    )


def check_classes(recipe: Recipe, found: int, source: str) -> None:
    """Refuse a number of classes other than that of the data, and more top-K classes than there are.

    Args:
        recipe: settings as given.
        found: classes of the data, or of the weights where they decide.
        source: what has them, to be named.

    Raises:
        UserError: `num_classes` or `topk` contradicts them; both are named.
    """
    wanted, topk = recipe.model.num_classes, recipe.run.topk
    if wanted not in (None, found):
        raise UserError(f"--num-classes {wanted}: {source} has {found} classes; leave the flag out")
    # The default counts as the number of classes where that is less.
    if topk > found and topk != RunSettings.topk:
        raise UserError(f"--topk {topk}: {source} has {found} classes")


def _weights_facts(metadata: WeightsMetadata) -> WeightsFacts:
    preprocessing = metadata.preprocessing
    return WeightsFacts(
        preprocessing["image_size"],
        preprocessing["resize"],
        preprocessing["interpolation"],
        metadata.bn_epsilon,
    )
