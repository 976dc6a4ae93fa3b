"""Copies of a checkpoint's tensors in memory of their own, so that training goes on while they are written."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_ALIGNMENT = 64  # bytes


@dataclass(frozen=True)
class Copied:
    """Content of a checkpoint at the moment of the copy.

    Attributes:
        content: tensors on the CPU and plain values.
        event: after which copies from a GPU are complete; None if they are.
    """

    content: dict[str, Any]
    event: torch.cuda.Event | None

    def wait(self) -> dict[str, Any]:
        """Return the content as soon as it is complete."""
        if self.event is not None:
            self.event.synchronize()
        return self.content


class Copies:
    """Memory for the copies of one checkpoint after the other; it is allocated once, and again only to grow.

    Each tensor's copy has a storage of its own, so that views of one flat tensor are saved as what they are.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._layout: list[Any] = []
        self._buffers: list[Tensor] = []

    @torch.no_grad()
    def take(self, content: Mapping[str, Any]) -> Copied:
        """Copy the tensors, which may be changed afterwards; overwrites the copies taken before.

        From a GPU the copies go into pinned memory without a wait. They are queued in the current stream: behind the
        step that made the values, and before the one that changes them.

        Args:
            content: tensors on any device, and plain values, in dicts, lists and tuples.
        """
        tensors = list(_tensors(content))
        device = next((tensor.device for tensor in tensors if tensor.is_cuda), None)
        layout = [(tensor.dtype, tensor.shape, tensor.stride()) for tensor in tensors]
        if layout != self._layout:
            self._buffers = self._lay_out(tensors, pinned=device is not None)
            self._layout = layout
        torch._foreach_copy_(self._buffers, tensors, non_blocking=True)
        event = None
        if device is not None:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(device))
        return Copied(_replaced(content, iter(self._buffers)), event)

    def _lay_out(self, tensors: list[Tensor], *, pinned: bool) -> list[Tensor]:
        sizes = [_aligned(tensor.numel() * tensor.element_size()) for tensor in tensors]
        if sum(sizes) > len(self._memory):
            self._buffers = []  # which hold the memory
            self._memory = torch.empty(0, dtype=torch.uint8)
            self._memory = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=pinned)
        whole, begin, buffers = self._memory.numpy(), 0, []
        for tensor, size in zip(tensors, sizes, strict=True):
            part = torch.from_numpy(whole[begin : begin + tensor.numel() * tensor.element_size()])
            like = torch.empty_like(tensor, device="cpu" if size == 0 else "meta")
            buffers.append(
                like if size == 0 else part.view(tensor.dtype).as_strided(like.shape, like.stride())
            )
            begin += size
        return buffers


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _tensors(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors(entry)


def _replaced(value: Any, buffers: Iterator[Tensor]) -> Any:
    """Return a copy of nested containers with the next buffer in place of each tensor."""
    if isinstance(value, Tensor):
        return next(buffers)
    if isinstance(value, Mapping):
        return {key: _replaced(entry, buffers) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(entry, buffers) for entry in value)
    return value
