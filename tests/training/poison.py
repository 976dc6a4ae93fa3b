"""Batches that overflow in the middle of a good training."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from effnet.training.step import TrainStep
from effnet.training.trainer import Trainer

INFINITY = float("inf")


def poison_loss(trainer: Trainer) -> Any:
    """Multiply the images of every batch by infinity from now on; returns a handle to `remove`."""
    return trainer.opened.model.register_forward_pre_hook(lambda _, inputs: (inputs[0] * INFINITY,))


def poison_statistic(trainer: Trainer) -> Any:
    """Make one of BatchNorm's running statistics infinite in every batch, whose loss stays finite."""

    def overflow(norm: nn.Module, _: Any) -> None:
        norm.get_buffer("running_var")[0] = INFINITY

    return trainer.opened.model.stem.bn.register_forward_pre_hook(overflow)


def poison_gradient(trainer: Trainer) -> Any:
    """Make a gradient infinite in every batch, whose loss and statistics stay finite."""
    return trainer.opened.model.stem.conv.weight.register_hook(lambda gradient: gradient * INFINITY)


POISONS: dict[str, Callable[[Trainer], Any]] = {
    "loss": poison_loss,
    "statistic": poison_statistic,
    "gradient": poison_gradient,
}


@contextmanager
def poisoned_batches(numbers: Collection[int]) -> Iterator[None]:
    """Multiply the images of some of this process's training batches by infinity.

    Args:
        numbers: positions of the batches among all that are trained inside, from 1.
    """
    real, trained = TrainStep.forward, 0

    def forward(step: TrainStep, images: Tensor, *others: Any) -> Tensor:
        nonlocal trained
        trained += 1
        return real(step, images * INFINITY if trained in numbers else images, *others)

    with patch.object(TrainStep, "forward", forward):
        yield


def everything(trainer: Trainer) -> dict[str, Tensor]:
    """Copies of all tensors that a step of the optimizer may change."""
    state = trainer.state
    assert state.ema is not None
    tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in state.ema.module.state_dict().items()}
    tensors |= {
        f"{kind}.{name}": value
        for name, kinds in state.optimizer.state_dict().items()
        for kind, value in kinds.items()
    }
    tensors["ema step"] = state.ema._step
    return {name: value.clone() for name, value in tensors.items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that are not equal bit for bit."""
    assert one.keys() == other.keys()
    return [name for name, value in one.items() if not torch.equal(value, other[name])]
