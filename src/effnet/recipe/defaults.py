"""Values of the settings that a recipe leaves open, group by group."""

from dataclasses import fields
from typing import Any, Literal

from effnet.recipe.resolved import (
    Facts,
    ResolvedCompute,
    ResolvedData,
    ResolvedModel,
    ResolvedOptimizer,
    ResolvedQuantization,
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
    ScheduleSettings,
    TaskSettings,
)
from effnet.runtime.errors import UserError

# NVIDIA's README states learning rates for steps of 4096 images.
REFERENCE_BATCH_SIZE = 4096
WARMUP_EPOCHS = 16
WARMUP_SHARE = 0.1
# NVIDIA's README validates at size + 32, which fits its sizes of 224 and more; smaller images keep 224's proportion.
RESIZE_MARGIN = 32
LARGEST_RESIZE = 256 / 224


def from_weights(model: ModelSettings, data: DataSettings, weights: WeightsFacts | None) -> dict[str, Any]:
    """Return the values, by name, of settings that follow from the weights unless they are given."""
    if weights is None:
        return {}
    size = model.image_size or weights.image_size
    return {
        "image_size": size,
        "bn_epsilon": model.bn_epsilon or weights.bn_epsilon,
        "interpolation": data.interpolation or weights.interpolation,
        # At another size, the proportion of crop to image stays.
        "resize": data.resize or round(size * weights.resize / weights.image_size),
    }


def complete_model(given: ModelSettings, facts: Facts) -> ResolvedModel:
    """Fill in the model's own settings and the classes of the data."""
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


def complete_data(given: DataSettings, image_size: int, facts: Facts) -> ResolvedData:
    """Fill in the input settings of NVIDIA's README for an image size in pixels, and the machine's workers.

    Raises:
        UserError: the first size of progressive ones is the largest.
    """
    if given.progressive_sizes is not None and given.progressive_sizes > image_size:
        raise UserError(
            f"--progressive-sizes {given.progressive_sizes} is above --image-size {image_size}; give a smaller one"
        )
    return ResolvedData(
        **_kept(given, ResolvedData),
        workers=facts.workers if given.workers is None else given.workers,
        interpolation=given.interpolation or "bicubic",
        resize=given.resize or min(image_size + RESIZE_MARGIN, round(image_size * LARGEST_RESIZE)),
    )


def complete_task(given: TaskSettings, facts: Facts) -> ResolvedTask:
    """Fill in the labels that the data and the weights have."""
    found: Literal["single", "multi"] = "multi" if facts.several_labels else "single"
    return ResolvedTask(**_kept(given, ResolvedTask), task=found if given.task == "auto" else given.task)


def complete_optimizer(given: OptimizerSettings, facts: Facts) -> ResolvedOptimizer:
    """Fill in the learning rate and weight decay of NVIDIA's README, scaled to the images of a step."""
    base_lr = given.base_lr or (0.16 if facts.model.is_large else 0.08)
    weight_decay = 5e-6 if facts.model.is_large else 1e-5
    # `auto` is a number by the time that a training starts (`effnet.training.batch_size`).
    batch_size = OptimizerSettings.batch_size if given.batch_size is None else given.batch_size
    assert batch_size is not None
    at_once = batch_size * facts.world_size
    step_size = max(1, round((given.optimizer_batch_size or at_once) / at_once)) * at_once
    return ResolvedOptimizer(
        **_kept(given, ResolvedOptimizer),
        batch_size=batch_size,
        optimizer_batch_size=step_size,
        lr=given.lr or base_lr * step_size / REFERENCE_BATCH_SIZE,
        base_lr=base_lr,
        weight_decay=weight_decay if given.weight_decay is None else given.weight_decay,
    )


def complete_schedule(given: ScheduleSettings, task: ResolvedTask) -> ResolvedSchedule:
    """Fill in all epochs for this run, the task's metric, and NVIDIA's warm-up, shorter for short trainings."""
    warmup = min(WARMUP_EPOCHS, WARMUP_SHARE * given.epochs) if given.warmup is None else given.warmup
    return ResolvedSchedule(
        **_kept(given, ResolvedSchedule),
        run_epochs=given.run_epochs or given.epochs,
        warmup=float(warmup),
        best_metric=given.best_metric or ("average_precision" if task.task == "multi" else "top1"),
    )


def complete_compute(given: ComputeSettings, facts: Facts) -> ResolvedCompute:
    """Fill in the arithmetic of the device."""
    return ResolvedCompute(**_kept(given, ResolvedCompute), precision=facts.precision)


def complete_quantization(given: QuantizationSettings, epochs: int, facts: Facts) -> ResolvedQuantization:
    """Fill in the width of weights for the CPU, and rounding to nearest for weights that are trained or examined."""
    is_reduced = facts.sums_overflow if given.reduce_range is None else given.reduce_range
    return ResolvedQuantization(
        **_kept(given, ResolvedQuantization),
        reduce_range=is_reduced if given.cpu == "auto" else given.cpu == "any",
        rounding=given.rounding or ("nearest" if epochs or given.sensitivity else "gptq"),
    )


def _kept(given: object, resolved: type) -> dict[str, Any]:
    """Return the settings of a group that its resolved class takes over without declaring them required."""
    return {
        leaf.name: getattr(given, leaf.name)
        for leaf in fields(given)  # type: ignore[arg-type]
        if leaf.name not in resolved.__annotations__
    }
