"""Gradient checkpointing by block: the backward pass computes a block's activations again, so that none is kept."""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from effnet.models.efficientnet import EfficientNet
from effnet.models.layers import ResidualBlock
from effnet.models.replace import replace_modules, with_state_of

M = TypeVar("M", bound=EfficientNet)


def recompute_blocks(model: M) -> M:
    """Make each block of a model keep its input alone for the backward pass.

    Gradients, BatchNorm's statistics and the random choices are those of a model without, bit for bit.

    Args:
        model: plain, quantized or accelerated; its blocks are replaced, their names and tensors stay.

    Returns:
        `model`.
    """
    return replace_modules(model, _recomputing)


def _recomputing(module: nn.Module) -> nn.Module:
    if not isinstance(module, ResidualBlock):
        return module
    cls: Any = type(module)
    replaced: nn.Module = with_state_of(_subclass(cls), module)
    return replaced


@functools.cache
def _subclass(cls: Any) -> Any:
    """Return a class of blocks that compute what those of `cls` do, twice in training."""

    def forward(self: ResidualBlock, x: Tensor) -> Any:
        block = functools.partial(cls.forward, self)
        if not torch.is_grad_enabled() or torch.compiler.is_exporting():
            return block(x)
        if torch.compiler.is_compiling():
            # The compiler knows what is computed twice; statistics are written once.
            return checkpoint(block, x, use_reentrant=False)
        contexts = functools.partial(_contexts, self)
        return checkpoint(block, x, use_reentrant=False, context_fn=contexts)

    return type(f"Recomputed{cls.__name__}", (cls,), {"forward": forward, "__doc__": cls.__doc__})


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), _copied_buffers(block)


@contextmanager
def _copied_buffers(block: nn.Module) -> Iterator[None]:
    """Let what a block learns without gradients, as BatchNorm its statistics, go into copies that are dropped."""
    kept = {module: module._buffers for module in block.modules() if module._buffers}
    for module, buffers in kept.items():
        module._buffers = {name: None if live is None else live.clone() for name, live in buffers.items()}
    try:
        yield
    finally:
        for module, buffers in kept.items():
            module._buffers = buffers
