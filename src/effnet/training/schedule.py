"""The learning rate at every point of a training.

A new schedule is a row of `SCHEDULES` and its name in `effnet.recipe.choices.ScheduleName`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from effnet.recipe import ResolvedSchedule
from effnet.recipe.choices import ScheduleName
from effnet.runtime.registry import registry

# Of 90 epochs, the ends of the three plateaus (arXiv 1706.02677, section 5.1); here as shares of the training.
STEP_MILESTONES = (30 / 90, 60 / 90, 80 / 90)


@dataclass(frozen=True)
class Point:
    """A point of a training after the warm-up.

    Attributes:
        since_warmup: from 0 at the end of the warm-up to 1 at the end of the training.
        since_start: from 0 at the start of the training, warm-up included, to 1 at its end.
    """

    since_warmup: float
    since_start: float


@dataclass(frozen=True)
class Schedule:
    """The fall of the learning rate after the warm-up.

    Attributes:
        name: value of ``--lr-schedule``.
        summary: the course of the rate, for the documentation's table.
        rate: returns the learning rate from that at the end of the warm-up, ``--end-lr`` and the point.
    """

    name: str
    summary: str
    rate: Callable[[float, float, Point], float]


def _cosine(lr: float, end_lr: float, at: Point) -> float:
    return end_lr + (lr - end_lr) * (1 + math.cos(math.pi * at.since_warmup)) / 2


def _linear(lr: float, end_lr: float, at: Point) -> float:
    return lr + (end_lr - lr) * at.since_warmup


def _step(lr: float, end_lr: float, at: Point) -> float:
    passed = sum(at.since_start >= milestone for milestone in STEP_MILESTONES)
    return max(end_lr, lr * 0.1**passed)


SCHEDULES = registry(
    ScheduleName,
    Schedule("cosine", "Half a period of a cosine, to `--end-lr` at the end of the training", _cosine),
    Schedule("linear", "A straight line to `--end-lr` at the end of the training", _linear),
    Schedule("step", "A tenth after 30, 60 and 80 of 90 parts of the training, `--end-lr` at least", _step),
)


def learning_rate(settings: ResolvedSchedule, lr: float, epoch: float) -> float:
    """Return the learning rate of a step.

    It changes with every step, not with every epoch. In the warm-up it rises linearly from 0, in the very first step,
    to `lr`: at step s it is lr * s / (warmup * steps per epoch). After it the rate falls over the rest of the training,
    as the row of `settings.lr_schedule` says.

    Args:
        settings: shape, warm-up and length of the schedule.
        lr: learning rate at the end of the warm-up.
        epoch: epochs done before the step, fractions included, from 0 to `settings.epochs`.
    """
    warmup, epochs = settings.warmup, settings.epochs
    if epoch < warmup:
        return lr * epoch / warmup
    since_warmup = min(1.0, (epoch - warmup) / (epochs - warmup)) if epochs > warmup else 0.0
    at = Point(since_warmup, since_start=epoch / epochs if epochs else 1.0)
    return SCHEDULES[settings.lr_schedule].rate(lr, settings.end_lr, at)
