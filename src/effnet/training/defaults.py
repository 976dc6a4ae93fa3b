"""What `None` in a recipe stands for, once the model, the data and the processes are known."""

from dataclasses import dataclass

from effnet.models import model_config
from effnet.recipe import Recipe

REFERENCE_BATCH_SIZE = 4096
WARMUP_EPOCHS = 16
WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class OptimizerDefaults:
    """Published settings that depend on the model's size: the document's "Default configuration"."""

    base_lr: float
    weight_decay: float


SMALL = OptimizerDefaults(base_lr=0.08, weight_decay=1e-5)
LARGE = OptimizerDefaults(base_lr=0.16, weight_decay=5e-6)
# NVIDIA's README has B0 and B4; a model takes the settings of the nearer one below it.
_LARGE_MODELS = {f"efficientnet-{family}{size}" for family in ("b", "widese-b") for size in (4, 5, 6, 7)}
_LARGE_MODELS |= {model.replace("-", "-quant-", 1) for model in _LARGE_MODELS}


def optimizer_defaults(arch: str) -> OptimizerDefaults:
    """Row for a model."""
    return LARGE if arch in _LARGE_MODELS else SMALL


def resolve(recipe: Recipe, *, num_classes: int, world_size: int = 1) -> Recipe:
    """Fill in all that follows from the model, the classes found and the number of processes.

    Args:
        recipe: settings as given.
        num_classes: classes of the data, for `num_classes` where it is not set.
        world_size: processes of the run.

    Returns:
        A recipe whose model, learning rate, weight decay, warm-up, step size and epochs are all numbers.

    Raises:
        ModelError: unknown model or a model setting out of range.
    """
    given, optimizer, schedule = recipe.model, recipe.optimizer, recipe.schedule
    model = model_config(
        given.arch,
        image_size=given.image_size,
        dropout=given.dropout,
        survival_prob=given.survival_prob,
        bn_momentum=given.bn_momentum,
        bn_epsilon=given.bn_epsilon,
    )
    defaults = optimizer_defaults(given.arch)
    base_lr = optimizer.base_lr or defaults.base_lr
    step_size = accumulation_steps(recipe, world_size) * optimizer.batch_size * world_size
    weight_decay = defaults.weight_decay if optimizer.weight_decay is None else optimizer.weight_decay
    warmup = (
        min(WARMUP_EPOCHS, WARMUP_SHARE * schedule.epochs) if schedule.warmup is None else schedule.warmup
    )
    return recipe.replace(
        {
            "num_classes": given.num_classes or num_classes,
            "image_size": model.image_size,
            "dropout": model.dropout,
            "survival_prob": model.survival_prob,
            "bn_momentum": model.bn_momentum,
            "bn_epsilon": model.bn_epsilon,
            "base_lr": base_lr,
            "lr": optimizer.lr or base_lr * step_size / REFERENCE_BATCH_SIZE,
            "weight_decay": weight_decay,
            "optimizer_batch_size": step_size,
            "warmup": float(warmup),
            "run_epochs": schedule.run_epochs or schedule.epochs or None,
        }
    )


def accumulation_steps(recipe: Recipe, world_size: int) -> int:
    """Batches per optimizer step: the wished step size over what one batch of every process holds, at least 1."""
    at_once = recipe.optimizer.batch_size * world_size
    wished = recipe.optimizer.optimizer_batch_size or at_once
    return max(1, round(wished / at_once))
