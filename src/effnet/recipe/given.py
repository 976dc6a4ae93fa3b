"""A recipe as it is given by flags, YAML files or a checkpoint; an open setting is None."""

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, replace
from pathlib import Path
from typing import Any

from effnet.recipe import defaults
from effnet.recipe.groups import Groups, leaves_of
from effnet.recipe.resolved import Facts, ResolvedRecipe
from effnet.recipe.settings import (
    ComputeSettings,
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    QuantizationSettings,
    RunSettings,
    ScheduleSettings,
    TaskSettings,
)
from effnet.recipe.yaml_file import read_yaml
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.suggestions import suggested


@dataclass(frozen=True)
class Recipe(Groups):
    """All settings of a run as they are given."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    run: RunSettings = field(default_factory=RunSettings)
    quantization: QuantizationSettings = field(default_factory=QuantizationSettings)

    def resolve(self, facts: Facts) -> ResolvedRecipe:
        """Return the complete recipe of a run.

        Args:
            facts: the model, the data, the weights and the machine that the run has.

        Raises:
            UserError: the weights' image size, resize or epsilon is out of the setting's range.
        """
        recipe = self.replace(defaults.from_weights(self.model, self.data, facts.weights))
        model = defaults.complete_model(recipe.model, facts)
        task = defaults.complete_task(recipe.task, facts)
        return ResolvedRecipe(
            model=model,
            data=defaults.complete_data(recipe.data, model.image_size, facts),
            task=task,
            optimizer=defaults.complete_optimizer(recipe.optimizer, facts),
            schedule=defaults.complete_schedule(recipe.schedule, task),
            compute=defaults.complete_compute(recipe.compute, facts),
            run=replace(recipe.run, resume=facts.resume),
            quantization=defaults.complete_quantization(recipe.quantization, recipe.schedule.epochs, facts),
        )

    @classmethod
    def from_dict(cls, groups: Mapping[str, Mapping[str, Any]]) -> "Recipe":
        """Return the recipe that `to_dict` described; settings that it lacks have their defaults.

        Raises:
            UserError: see `flatten` and `replace`.
        """
        return cls().replace(flatten(groups))


def settings() -> Iterator[tuple[str, type, Field[Any]]]:
    """Yield every setting: its group's name, its group's class and its field."""
    yield from leaves_of(Recipe)


_GROUP_OF = {leaf.name: group for group, _, leaf in settings()}


def flatten(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings by name of a nested mapping, as `Recipe.to_dict` returns one.

    Raises:
        UserError: a setting that does not exist or stands in another group.
    """
    values = {}
    for group, members in groups.items():
        if not isinstance(members, Mapping):
            raise UserError(f"setting group {group!r} must hold settings, not {members!r}")
        for name, value in members.items():
            if _GROUP_OF.get(name) != group:
                raise UserError(f"unknown setting {group}.{name}{_hint(name)}")
            values[name] = value
    return values


def _hint(name: str) -> str:
    """Return what a setting that is not in its group may be meant to be."""
    if name in _GROUP_OF:
        return f"; it is in the group {_GROUP_OF[name]}"
    return suggested(str(name), _GROUP_OF)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Return the settings by name that a YAML recipe file sets.

    Raises:
        UserError: the file can't be read, is not YAML, or holds an unknown setting or value; the file is named.
    """
    content = read_yaml(path)
    try:
        values = flatten(content)
        Recipe().replace(values)
        return values
    except UserError as error:
        raise UserError(f"recipe {path}: {one_line(error)}") from None
