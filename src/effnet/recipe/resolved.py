"""A recipe without open settings, and the facts that decide those that were open.

Everything below this package takes a `ResolvedRecipe`. It is made once for each run, by `Recipe.resolve`.
"""

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from effnet.recipe.groups import Groups
from effnet.recipe.settings import (
    ComputeSettings,
    DataSettings,
    Interpolation,
    ModelSettings,
    OptimizerSettings,
    QuantizationSettings,
    RunSettings,
    ScheduleSettings,
)

if TYPE_CHECKING:
    from effnet.recipe.given import Recipe

Arithmetic = Literal["fp32", "tf32", "fp16", "bf16"]

# NVIDIA's README states learning rates for steps of 4096 images.
REFERENCE_BATCH_SIZE = 4096
WARMUP_EPOCHS = 16
WARMUP_SHARE = 0.1
# NVIDIA's README validates at size + 32, which fits its sizes of 224 and more; smaller images keep 224's proportion.
RESIZE_MARGIN = 32
LARGEST_RESIZE = 256 / 224


# In the classes below, `field()` without a default makes a setting required that is open in the group above.


@dataclass(frozen=True, kw_only=True)
class ResolvedModel(ModelSettings):
    """Model. None is a value of `pretrained_source` (any publisher) and `pretrained_from_file` (no file)."""

    num_classes: int = field()
    image_size: int = field()
    dropout: float = field()
    survival_prob: float = field()
    bn_momentum: float = field()
    bn_epsilon: float = field()


@dataclass(frozen=True, kw_only=True)
class ResolvedData(DataSettings):
    """Data and augmentation. None is a value of `class_map` (no file)."""

    workers: int = field()
    interpolation: Interpolation = field()
    resize: int = field()


@dataclass(frozen=True, kw_only=True)
class ResolvedOptimizer(OptimizerSettings):
    """Optimizer and loss. None is a value of `use_ema` (no average)."""

    optimizer_batch_size: int = field()
    lr: float = field()
    base_lr: float = field()
    weight_decay: float = field()

    def accumulation(self, world_size: int) -> int:
        """Return the batches of each process in a step of the optimizer, over `world_size` processes."""
        return self.optimizer_batch_size // (self.batch_size * world_size)


@dataclass(frozen=True, kw_only=True)
class ResolvedSchedule(ScheduleSettings):
    """Schedule. None is a value of `early_stopping_patience` (never)."""

    run_epochs: int = field()
    warmup: float = field()


@dataclass(frozen=True, kw_only=True)
class ResolvedCompute(ComputeSettings):
    """Device and precision. None is a value of `static_loss_scale` (a dynamic one)."""

    precision: Arithmetic = field()


@dataclass(frozen=True)
class ResolvedRecipe(Groups):
    """All settings of a run, complete.

    None is a value of some settings, which the groups name. In `run` these are `resume` (no checkpoint), `prof` (no
    limit), `engine` (the one that the file is for), `per_class` and `confusion` (not written); in `quantization`,
    `calib_data` (the run's training images).
    """

    model: ResolvedModel
    data: ResolvedData
    optimizer: ResolvedOptimizer
    schedule: ResolvedSchedule
    compute: ResolvedCompute
    run: RunSettings
    quantization: QuantizationSettings


@dataclass(frozen=True)
class ModelFacts:
    """Fields of the model's configuration row.

    Attributes:
        is_large: the model is trained with the published settings of B4 rather than with those of B0.
        image_size, dropout, survival_prob, bn_momentum, bn_epsilon: as in `ModelSettings`.
    """

    is_large: bool
    image_size: int
    dropout: float
    survival_prob: float
    bn_momentum: float
    bn_epsilon: float


@dataclass(frozen=True)
class WeightsFacts:
    """Metadata of the weights that a run starts from or evaluates.

    Attributes:
        image_size: side of the centre crop in pixels.
        resize: shorter side in pixels before the crop.
        interpolation: of the resize.
        bn_epsilon: epsilon of BatchNorm.
    """

    image_size: int
    resize: int
    interpolation: str
    bn_epsilon: float


@dataclass(frozen=True)
class Facts:
    """Facts that a recipe's open settings follow from.

    Attributes:
        model: configuration row of the model.
        num_classes: classes of the data.
        world_size: processes of the run.
        workers: processes that may load images for each process of the run.
        precision: arithmetic of the run on its device.
        weights: metadata of the weights; None for fresh ones, or weights without any.
        resume: path of the checkpoint that the run goes on from; None for none.
    """

    model: ModelFacts
    num_classes: int
    world_size: int
    workers: int
    precision: Arithmetic
    weights: WeightsFacts | None = None
    resume: str | None = None


def resolve(recipe: "Recipe", facts: Facts) -> ResolvedRecipe:
    """Return a recipe with every open setting filled in; see `Recipe.resolve`."""
    recipe = recipe.replace(_from_weights(recipe, facts.weights))
    model = _model(recipe.model, facts)
    return ResolvedRecipe(
        model,
        _data(recipe.data, model.image_size, facts),
        _optimizer(recipe.optimizer, facts),
        _schedule(recipe.schedule),
        ResolvedCompute(**_kept(recipe.compute, ResolvedCompute), precision=facts.precision),
        replace(recipe.run, resume=facts.resume),
        recipe.quantization,
    )


def _from_weights(recipe: "Recipe", weights: WeightsFacts | None) -> dict[str, Any]:
    """Return the values of open settings that the weights bring along."""
    if weights is None:
        return {}
    size = recipe.model.image_size or weights.image_size
    return {
        "image_size": size,
        "bn_epsilon": recipe.model.bn_epsilon or weights.bn_epsilon,
        "interpolation": recipe.data.interpolation or weights.interpolation,
        # At another size, the proportion of crop to image stays.
        "resize": recipe.data.resize or round(size * weights.resize / weights.image_size),
    }


def _model(given: ModelSettings, facts: Facts) -> ResolvedModel:
    row = facts.model
    return ResolvedModel(
        **_kept(given, ResolvedModel),
        num_classes=given.num_classes or facts.num_classes,
        image_size=given.image_size or row.image_size,
        dropout=row.dropout if given.dropout is None else given.dropout,
        survival_prob=given.survival_prob or row.survival_prob,
        bn_momentum=row.bn_momentum if given.bn_momentum is None else given.bn_momentum,
        bn_epsilon=given.bn_epsilon or row.bn_epsilon,
    )


def _data(given: DataSettings, image_size: int, facts: Facts) -> ResolvedData:
    return ResolvedData(
        **_kept(given, ResolvedData),
        workers=facts.workers if given.workers is None else given.workers,
        interpolation=given.interpolation or "bicubic",
        resize=given.resize or min(image_size + RESIZE_MARGIN, round(image_size * LARGEST_RESIZE)),
    )


def _optimizer(given: OptimizerSettings, facts: Facts) -> ResolvedOptimizer:
    """Fill in the learning rate and weight decay of NVIDIA's README, scaled to the images of a step."""
    base_lr = given.base_lr or (0.16 if facts.model.is_large else 0.08)
    weight_decay = 5e-6 if facts.model.is_large else 1e-5
    at_once = given.batch_size * facts.world_size
    step_size = max(1, round((given.optimizer_batch_size or at_once) / at_once)) * at_once
    return ResolvedOptimizer(
        **_kept(given, ResolvedOptimizer),
        optimizer_batch_size=step_size,
        lr=given.lr or base_lr * step_size / REFERENCE_BATCH_SIZE,
        base_lr=base_lr,
        weight_decay=weight_decay if given.weight_decay is None else given.weight_decay,
    )


def _schedule(given: ScheduleSettings) -> ResolvedSchedule:
    warmup = min(WARMUP_EPOCHS, WARMUP_SHARE * given.epochs) if given.warmup is None else given.warmup
    return ResolvedSchedule(
        **_kept(given, ResolvedSchedule),
        run_epochs=given.run_epochs or given.epochs,
        warmup=float(warmup),
    )


def _kept(given: object, resolved: type) -> dict[str, Any]:
    """Return the settings of a group that its resolved class takes over without declaring them required."""
    return {
        leaf.name: getattr(given, leaf.name)
        for leaf in fields(given)  # type: ignore[arg-type]
        if leaf.name not in resolved.__annotations__
    }
