"""Every setting of a run, and the published recipes by name."""

from effnet.recipe.given import Recipe, flatten, read_recipe, settings
from effnet.recipe.resolved import (
    Arithmetic,
    Facts,
    ModelFacts,
    ResolvedCompute,
    ResolvedData,
    ResolvedModel,
    ResolvedOptimizer,
    ResolvedRecipe,
    ResolvedSchedule,
    ResolvedTask,
    WeightsFacts,
)
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

__all__ = [
    "Arithmetic",
    "ComputeSettings",
    "DataSettings",
    "Facts",
    "ModelFacts",
    "ModelSettings",
    "OptimizerSettings",
    "QuantizationSettings",
    "Recipe",
    "ResolvedCompute",
    "ResolvedData",
    "ResolvedModel",
    "ResolvedOptimizer",
    "ResolvedRecipe",
    "ResolvedSchedule",
    "ResolvedTask",
    "RunSettings",
    "ScheduleSettings",
    "TaskSettings",
    "WeightsFacts",
    "flatten",
    "read_recipe",
    "read_yaml",
    "settings",
]
