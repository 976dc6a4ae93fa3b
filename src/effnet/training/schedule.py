"""The learning rate at every point of a training."""

import math

from effnet.recipe import ResolvedSchedule

# Of 90 epochs, the ends of the three plateaus (arXiv 1706.02677, section 5.1); here as shares of the training.
STEP_MILESTONES = (30 / 90, 60 / 90, 80 / 90)


def learning_rate(settings: ResolvedSchedule, lr: float, epoch: float) -> float:
    """Learning rate of a step.

    It changes with every step, not with every epoch. In the warm-up it rises linearly from 0, in the very first step,
    to `lr`: at step s it is lr * s / (warmup * steps per epoch). After it the rate falls over what is left of the
    training, as `settings.lr_schedule` says, to `settings.end_lr`; a cosine is half a period from the end of the
    warm-up to the end of the training.

    Args:
        settings: shape, warm-up and length of the schedule.
        lr: learning rate at the end of the warm-up.
        epoch: epochs done before the step, fractions included, from 0 to `settings.epochs`.
    """
    warmup = settings.warmup
    if epoch < warmup:
        return lr * epoch / warmup
    progress = min(1.0, (epoch - warmup) / (settings.epochs - warmup)) if settings.epochs > warmup else 0.0
    match settings.lr_schedule:
        case "cosine":
            return settings.end_lr + (lr - settings.end_lr) * (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            return lr + (settings.end_lr - lr) * progress
        case "step":
            passed = sum(epoch >= milestone * settings.epochs for milestone in STEP_MILESTONES)
            return max(settings.end_lr, lr * 0.1**passed)
