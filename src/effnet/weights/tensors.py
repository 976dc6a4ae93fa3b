"""Checks of tensors out of files: plain numbers in memory of their own size, all of them finite."""

from collections.abc import Mapping

import torch
from torch import Tensor

from effnet.runtime.errors import UserError, one_line

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
MOST_ENTRIES = 10_000
"""most tensors in a state dict; the largest quantized model has a third of them"""

_LONGEST_KEY = 300


def check_tensors(tensors: object, where: str) -> None:
    """Refuse what is not a mapping of names to dense tensors of real numbers on the CPU.

    Args:
        tensors: a state dict out of a file.
        where: the file and the entry, for the error.

    Raises:
        UserError: there is something else in it; the entry is named.
    """
    if not isinstance(tensors, Mapping) or not tensors:
        raise UserError(f"{where}: holds no weights")
    if len(tensors) > MOST_ENTRIES:
        raise UserError(f"{where}: not weights: {len(tensors)} entries, more than any model has")
    for key, tensor in tensors.items():
        if not isinstance(key, str) or len(key) > _LONGEST_KEY:
            raise UserError(f"{where}: not weights: it has a key that is no name of a parameter")
        if flaw := _flaw(tensor):
            raise UserError(f"{where}: not weights: {one_line(repr(key))} is {flaw}")


def _flaw(tensor: object) -> str | None:
    """Return what keeps a value from being used as weights, or None."""
    if not isinstance(tensor, Tensor):
        return f"a {type(tensor).__name__}, not a tensor"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "a sparse or nested tensor"
    if tensor.is_meta or tensor.device.type != "cpu":
        return "a tensor without data"
    if tensor.is_quantized or tensor.dtype not in (*_FLOATS, *_INTEGERS):
        return f"a tensor of {str(tensor.dtype).removeprefix('torch.')}"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "a tensor larger than its memory"
    return None


def check_finite(tensors: Mapping[str, Tensor], where: str, *, takes_infinity: bool = False) -> None:
    """Refuse tensors with an element that is NaN or infinite.

    Args:
        tensors: what `check_tensors` let pass, in sizes that are known to be a model's.
        where: the file and the entry, for the error.
        takes_infinity: accept infinite elements: a mean of squared gradients may overflow while the weights are finite.

    Raises:
        UserError: there is one; the entry is named.
    """
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        if bool(tensor.isnan().any()) or not (takes_infinity or bool(tensor.isfinite().all())):
            raise UserError(
                f"{where}: {key} holds values that are not finite: its training diverged; take an earlier checkpoint"
            )
