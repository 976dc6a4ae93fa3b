"""Plain mean of a model's weights at the ends of a training's last epochs (arXiv 1803.05407)."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class LastAverage:
    """Mean of a model's floating-point weights and statistics over epochs' ends; counters are the last one's.

    Args:
        model: the model on its device.
        first: first epoch that counts, from 0.

    Attributes:
        epochs: epochs that the mean is of.
        weights: the mean by the names of the model's state dict; empty before the first one.
    """

    def __init__(self, model: nn.Module, first: int) -> None:
        self._model = model
        self._next = self._first = first
        self.epochs = 0
        self.weights: dict[str, Tensor] = {}

    def takes(self, epoch: int) -> bool:
        """Return True if an epoch, from 0, counts and has not been added."""
        return epoch >= self._next

    @torch.no_grad()
    def add(self, epoch: int) -> None:
        """Add the model as it is at the end of an epoch, from 0, that `takes` names."""
        self._next = epoch + 1
        self.epochs += 1
        for name, value in self._model.state_dict().items():
            if name in self.weights and value.is_floating_point():
                self.weights[name].lerp_(value, 1 / self.epochs)
            else:
                self.weights[name] = value.detach().clone()

    def module(self) -> nn.Module:
        """Return a model with the mean as its weights, in evaluation mode."""
        module = deepcopy(self._model).requires_grad_(False).eval()
        module.load_state_dict(self.weights)
        return module

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors and plain values."""
        return {"epochs": self.epochs, "next": self._next, "state_dict": dict(self.weights)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Restore what `state_dict` returned; None for a training that has added nothing."""
        self.epochs, self._next, self.weights = 0, self._first, {}
        if state is None:
            return
        self.weights = {
            name: torch.empty_like(value).copy_(state["state_dict"][name])
            for name, value in self._model.state_dict().items()
        }
        self.epochs, self._next = state["epochs"], max(self._first, state["next"])
