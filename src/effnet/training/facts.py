"""Facts that a recipe's open settings follow from, collected from the model's row, the weights and the machine."""

from dataclasses import fields
from typing import cast

from effnet.data.workers import worker_count
from effnet.models import model_config
from effnet.recipe import Arithmetic, Facts, ModelFacts, Recipe, WeightsFacts
from effnet.weights import WeightsMetadata


def facts_of(
    recipe: Recipe,
    *,
    precision: str,
    num_classes: int,
    world_size: int = 1,
    metadata: WeightsMetadata | None = None,
    resume: str | None = None,
) -> Facts:
    """Return the facts of a run, for `Recipe.resolve`.

    Args:
        recipe: settings as given; names the model.
        precision: arithmetic of the run, as `resolve_precision` returns it.
        num_classes: classes of the data.
        world_size: processes of the run.
        metadata: of the weights that the run starts from; None for fresh ones.
        resume: checkpoint that the run goes on from; None for none.

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
        None if metadata is None else _weights_facts(metadata),
        resume,
    )


def _weights_facts(metadata: WeightsMetadata) -> WeightsFacts:
    preprocessing = metadata.preprocessing
    return WeightsFacts(
        preprocessing["image_size"],
        preprocessing["resize"],
        preprocessing["interpolation"],
        metadata.bn_epsilon,
    )
