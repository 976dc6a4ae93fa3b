"""Replacement of modules in a finished model: how kernels and quantizers get into it from outside."""

import copy
from collections.abc import Callable
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def replace_modules(model: M, replacement: Callable[[nn.Module], nn.Module]) -> M:
    """Replace the modules inside a model, in place.

    Args:
        model: any model; it is not replaced itself.
        replacement: takes each module, after the modules inside it, and returns what is to stand in its place: a new
            module, or the same one.

    Returns:
        `model`.
    """
    for name, child in list(model.named_children()):
        replace_modules(child, replacement)
        new = replacement(child)
        if new is not child:
            model.add_module(name, new)  # in the old one's place in the order
    return model


def with_state_of(cls: type[M], source: nn.Module) -> M:
    """Make a module of `cls` out of the state of another, without running the constructor of `cls`.

    Args:
        cls: a class that computes otherwise with the same state, such as a subclass of the source's.
        source: the module whose parameters, buffers, children and attributes the new one shares.
    """
    new = cls.__new__(cls)
    new.__dict__ = {
        name: copy.copy(value) if isinstance(value, dict | set) else value
        for name, value in source.__dict__.items()
    }
    return new
