"""Conversion of files that earlier versions of this project wrote."""

import functools
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_LOG = logging.getLogger("effnet")

FORMAT = 2
"""Format number in the metadata of the files that are written. In format 1 the quantizers of squeeze-and-excitation's
product had exchanged names: `mul_a_quantizer` quantized the features and `mul_b_quantizer` the gate."""

_GATE, _FEATURES = "se.mul_a_quantizer.", "se.mul_b_quantizer."
# The bound of a sigmoid, and a margin for ranges that were widened to whole steps.
_LARGEST_GATE = 1.02


def with_todays_quantizers(
    state_dict: Mapping[str, "Tensor"], metadata: object, name: str = "weights"
) -> Mapping[str, "Tensor"]:
    """Return a state dict whose squeeze-and-excitation quantizers have their present names, which are NVIDIA's.

    Args:
        state_dict: weights as they were read.
        metadata: the file's metadata as plain values; only this project's files have any.
        name: name of the file for the log.
    """
    if not any(_GATE in key for key in state_dict) or not _are_exchanged(state_dict, metadata):
        return state_dict
    _tell(name)
    return {_exchanged(key): tensor for key, tensor in state_dict.items()}


@functools.cache  # a command reads a file more than once
def _tell(name: str) -> None:
    _LOG.warning("%s: from before format %d; mul_a_quantizer and mul_b_quantizer exchanged", name, FORMAT)


def _are_exchanged(state_dict: Mapping[str, "Tensor"], metadata: object) -> bool:
    if isinstance(metadata, Mapping):
        return _format_of(metadata) < FORMAT
    # Without metadata: a gate never exceeds 1, and in every network some features do.
    gates, features = _largest(state_dict, _GATE), _largest(state_dict, _FEATURES)
    return gates > _LARGEST_GATE >= features


def _format_of(metadata: Mapping[Any, Any]) -> int:
    number = metadata.get("format", 1)
    return number if isinstance(number, int) else FORMAT


def _largest(state_dict: Mapping[str, "Tensor"], quantizer: str) -> float:
    ranges = [tensor for key, tensor in state_dict.items() if key.endswith(f"{quantizer}_amax")]
    return max((float(amax) for amax in ranges if amax.numel() == 1 and not amax.is_meta), default=0.0)


def _exchanged(key: str) -> str:
    for ours, theirs in ((_GATE, _FEATURES), (_FEATURES, _GATE)):
        if ours in key:
            return key.replace(ours, theirs)
    return key
