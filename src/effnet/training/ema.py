"""Exponential moving average of a model's weights (Polyak averaging)."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class ModelEMA:
    """Average of a model's weights.

    At each `update`, every floating-point entry, BatchNorm's statistics included, moves a share 1 - decay of the way to
    the model's; counters are copied.

    The decay warms up, so that the random start is soon forgotten: of step n, counted from 0, it is
    min(`decay`, (1 + n) / (10 + n)).

    Args:
        model: model on its device; its parameters must not be replaced afterwards.
        decay: decay after the warm-up, in (0, 1).

    Attributes:
        module: the averaged model, in eval mode.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = deepcopy(model).requires_grad_(False).eval()
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        averaged = [(_memory(ours), _memory(theirs)) for ours, theirs in pairs if ours.is_floating_point()]
        counted = [(_memory(ours), _memory(theirs)) for ours, theirs in pairs if not ours.is_floating_point()]
        # Collected once: the tensors are updated in place ever after.
        self._ours, self._theirs = _unzip(averaged)
        self._counted: tuple[list[Tensor], list[Tensor]] = _unzip(counted)
        # On the device, so that counting the steps taken does not wait for it.
        self._step = torch.zeros((), dtype=torch.float64, device=self._ours[0].device)

    def set_step(self, step: int) -> None:
        """Go on from `step` updates, as after a resume."""
        self._step.fill_(step)

    @torch.no_grad()
    def update(self, taken: Tensor) -> None:
        """Follow the model by one step; does not wait for the device.

        Args:
            taken: bool scalar on the model's device, True if the optimizer made the step; otherwise the average stays
                as it is, counters included, and the step is not counted.
        """
        share = 1.0 - ((1.0 + self._step) / (10.0 + self._step)).clamp(max=self.decay)
        self._step += taken
        if taken.device.type == "cpu":
            if taken:
                torch._foreach_lerp_(self._ours, self._theirs, share.item())
                torch._foreach_copy_(*self._counted)
        else:
            self._blend(taken, share)

    def _blend(self, taken: Tensor, share: Tensor) -> None:
        old = torch.cat(self._ours)
        # A skipped step may leave values that are not finite; a share of 0 would turn them into NaN.
        _write(
            self._ours, torch.where(taken, torch.lerp(old, torch.cat(self._theirs), share.to(old.dtype)), old)
        )
        ours, theirs = self._counted
        if ours:
            _write(ours, torch.where(taken, torch.cat(theirs), torch.cat(ours)))


def _memory(tensor: Tensor) -> Tensor:
    """All elements in the order of the memory, whatever the memory format."""
    return tensor.as_strided((tensor.numel(),), (1,))


def _write(tensors: list[Tensor], flat: Tensor) -> None:
    torch._foreach_copy_(tensors, flat.split([len(tensor) for tensor in tensors]))


def _unzip(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
