"""Exponential moving average of a model's weights (Polyak averaging)."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class ModelEMA:
    """A copy of `model` that follows it: every floating-point entry, BatchNorm's statistics included, moves a share
    1 - `decay` of the way to the model's at each `update`; counters are copied.

    Args:
        model: model on its device; its parameters must not be replaced afterwards.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = deepcopy(model).requires_grad_(False).eval()
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        averaged = [(ours, theirs) for ours, theirs in pairs if ours.is_floating_point()]
        counted = [(ours, theirs) for ours, theirs in pairs if not ours.is_floating_point()]
        # Collected once: the tensors are updated in place ever after.
        self._averaged: tuple[list[Tensor], list[Tensor]] = _unzip(averaged)
        self._counted: tuple[list[Tensor], list[Tensor]] = _unzip(counted)

    @torch.no_grad()
    def update(self) -> None:
        """Follow the model by one step; does not wait for the device."""
        torch._foreach_lerp_(*self._averaged, 1.0 - self.decay)
        torch._foreach_copy_(*self._counted)


def _unzip(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
