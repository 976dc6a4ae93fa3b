"""Every setting of a run, and the published recipes by name."""

from effnet.recipe.recipe import (
    ComputeSettings,
    DataSettings,
    ModelSettings,
    OptimizerSettings,
    QuantizationSettings,
    Recipe,
    RunSettings,
    ScheduleSettings,
    flatten,
    read_recipe,
    read_yaml,
    settings,
)

__all__ = [
    "ComputeSettings",
    "DataSettings",
    "ModelSettings",
    "OptimizerSettings",
    "QuantizationSettings",
    "Recipe",
    "RunSettings",
    "ScheduleSettings",
    "flatten",
    "read_recipe",
    "read_yaml",
    "settings",
]
