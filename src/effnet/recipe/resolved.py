"""A recipe without open settings, and the facts that decide those that were open.

Everything below this package takes a `ResolvedRecipe`. It is made once for each run, by `Recipe.resolve`.
"""

from dataclasses import dataclass, field
from typing import Literal

from effnet.recipe.choices import MetricName
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
    TaskSettings,
)

Arithmetic = Literal["fp32", "tf32", "fp16", "bf16"]


# In the classes below, `field()` without a default makes a setting required that is open in the group above.


@dataclass(frozen=True, kw_only=True)
class ResolvedModel(ModelSettings):
    """Model.

    None is a value of `pretrained_source` (any publisher), `pretrained_from_file` (no file) and `unfreeze_every`
    (never).
    """

    num_classes: int = field()
    image_size: int = field()
    dropout: float = field()
    survival_prob: float = field()
    bn_momentum: float = field()
    bn_epsilon: float = field()


@dataclass(frozen=True, kw_only=True)
class ResolvedData(DataSettings):
    """Data and augmentation.

    None is a value of `class_map` (no file), `progressive_sizes` (one size), `root` (the table's folder), `fold`
    and `folds` (none), `label_separator` (one label), and of the columns of a table (those with the usual names).
    """

    workers: int = field()
    interpolation: Interpolation = field()
    resize: int = field()


@dataclass(frozen=True, kw_only=True)
class ResolvedTask(TaskSettings):
    """Labels and balance of the classes."""

    task: Literal["single", "multi"] = field()


@dataclass(frozen=True, kw_only=True)
class ResolvedOptimizer(OptimizerSettings):
    """Optimizer and loss. None is a value of `teacher` (none), `use_ema` (no average) and `clip_grad` (no clipping)."""

    batch_size: int = field()
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
    best_metric: MetricName = field()


@dataclass(frozen=True, kw_only=True)
class ResolvedCompute(ComputeSettings):
    """Device and precision. None is a value of `static_loss_scale` (a dynamic one)."""

    precision: Arithmetic = field()


@dataclass(frozen=True, kw_only=True)
class ResolvedQuantization(QuantizationSettings):
    """Quantization. None is a value of `calib_data` (the run's training images)."""

    reduce_range: bool = field()
    rounding: Literal["gptq", "nearest"] = field()


@dataclass(frozen=True)
class ResolvedRecipe(Groups):
    """All settings of a run, complete.

    None is a value of some settings, which the groups name. In `run` these are `resume` (no checkpoint), `prof` (no
    limit), `checkpoint_every` (epochs' ends only), `engine` (the one that the file is for), `per_class`, `confusion`
    and `reliability` (not written).
    """

    model: ResolvedModel
    data: ResolvedData
    task: ResolvedTask
    optimizer: ResolvedOptimizer
    schedule: ResolvedSchedule
    compute: ResolvedCompute
    run: RunSettings
    quantization: ResolvedQuantization


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
        sums_overflow: sums of products of 8-bit integers may overflow on this machine's CPU.
        weights: metadata of the weights; None for fresh ones, or weights without any.
        resume: path of the checkpoint that the run goes on from; None for none.
        several_labels: an image of the data, or of those that the weights were trained on, may have several labels.
    """

    model: ModelFacts
    num_classes: int
    world_size: int
    workers: int
    precision: Arithmetic
    sums_overflow: bool = True
    weights: WeightsFacts | None = None
    resume: str | None = None
    several_labels: bool = False
