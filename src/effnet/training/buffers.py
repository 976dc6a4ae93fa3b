"""A model's buffers over a step of the optimizer: kept before it, and restored if it is skipped."""

import torch
from torch import Tensor, nn


class StepBuffers:
    """Copies of a model's buffers from before a step; nothing here waits for a GPU.

    A forward pass in training updates BatchNorm's statistics and counters, and ranges of quantized weights, before it
    is known if the step will be taken. Without this a batch that overflows stays in them for the rest of the run.

    Args:
        model: model on its device; its buffers must not be replaced afterwards.
    """

    def __init__(self, model: nn.Module) -> None:
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for buffer in model.buffers():
            by_dtype.setdefault(buffer.dtype, []).append(buffer.view(-1))
        # Collected once: the tensors are updated in place ever after.
        self._groups = [_Group(live) for live in by_dtype.values()]
        self._holds_step = False

    def keep(self) -> None:
        """Copy the buffers, unless a step is under way, as with gradient accumulation after its first batch."""
        if not self._holds_step:
            for group in self._groups:
                group.keep()
        self._holds_step = True

    def settle(self, taken: Tensor) -> None:
        """End the step that `keep` began.

        Args:
            taken: bool scalar on the model's device; False restores the buffers.
        """
        self._holds_step = False
        if taken.device.type != "cpu":
            for group in self._groups:
                group.choose(taken)
        elif not taken:
            for group in self._groups:
                group.restore()

    def forget(self) -> None:
        """Drop a step that is under way, because the buffers have been replaced by those of another state."""
        self._holds_step = False

    def sum(self) -> Tensor:
        """Return the sum of all floating-point buffers, a scalar that is finite only if every element is."""
        totals = [group.sum() for group in self._groups if group.is_floating_point]
        return torch.stack(totals).sum()


class _Group:
    """Buffers of one data type and a copy of them in flat memory."""

    def __init__(self, live: list[Tensor]) -> None:
        self._live = live
        self._kept = torch.cat(live)
        self._parts = list(self._kept.split([len(buffer) for buffer in live]))
        self.is_floating_point = self._kept.is_floating_point()

    def keep(self) -> None:
        torch._foreach_copy_(self._parts, self._live)

    def restore(self) -> None:
        torch._foreach_copy_(self._live, self._parts)

    def choose(self, taken: Tensor) -> None:
        torch.where(taken, torch.cat(self._live), self._kept, out=self._kept)
        self.restore()

    def sum(self) -> Tensor:
        return torch.cat(self._live).sum(dtype=torch.float32)
