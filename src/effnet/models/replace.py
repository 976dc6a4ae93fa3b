"""Replacement of modules in a finished model, by which kernels and quantizers are added from outside."""

import copy
from collections.abc import Callable
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def replace_modules(model: M, replacement: Callable[[nn.Module], nn.Module]) -> M:
    """Replace the modules inside a model, in place.

    Args:
        model: any model; it is not replaced itself.
        replacement: function that is called with each module, innermost first, and returns a new module to put in its
            place, or the same one to leave it there.

    Returns:
        `model`.
    """
    for name, child in list(model.named_children()):
        replace_modules(child, replacement)
        new = replacement(child)
        if new is not child:
            model.add_module(name, new)  # keeps the position among the children
    return model


def with_state_of(cls: type[M], source: nn.Module) -> M:
    """Return a module of another class with the same state, without running that class's constructor.

    Args:
        cls: class of the new module, such as a subclass of the source's with another `forward`.
        source: module whose parameters, buffers, children and attributes the new one shares.
    """
    new = cls.__new__(cls)
    new.__dict__ = {
        name: copy.copy(value) if isinstance(value, dict | set) else value
        for name, value in source.__dict__.items()
    }
    return new
