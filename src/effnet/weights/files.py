"""Reading and writing weight files: `.pth`, `.pth.tar`, `.safetensors`. No pickle is ever executed."""

import json
import os
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_path
from effnet.runtime.suggestions import suggested_path
from effnet.weights.archive import checked_source
from effnet.weights.digest import is_intact, pickle_is_intact
from effnet.weights.history import with_todays_quantizers
from effnet.weights.hub import WEIGHTS_FILE, local_source
from effnet.weights.hub_config import metadata_beside
from effnet.weights.metadata import WeightsMetadata, parse_metadata
from effnet.weights.tensors import MOST_ENTRIES, check_tensors

_SAFETENSORS = ".safetensors"
_TORCH = (".pth", ".pt", ".tar")
# The key of our metadata in a safetensors header, whose values are strings.
_HEADER_KEY = "effnet"
_LARGEST_HEADER = 16 << 20  # bytes; the names of 100,000 classes fit
CONFIDENCE_OF_EMA = "confidence_ema"
"""entry of a checkpoint: the confidence of its averaged weights; that of the others is in its metadata"""
# What DistributedDataParallel and torch.compile put before every key.
_WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class WeightsFile:
    """Content of a weight file.

    Attributes:
        path: the file.
        state_dict: the tensors, on the CPU, under the names of the file's layout, wrappers' prefixes removed.
        metadata: metadata stored in the file, or None.
    """

    path: Path
    state_dict: dict[str, Tensor]
    metadata: WeightsMetadata | None


def read_weights(path: str | os.PathLike[str], *, ema: bool = False) -> WeightsFile:
    """Read weights, or the weights in a training checkpoint.

    Args:
        path: a `.safetensors` file, or a file of `torch.save` under any other suffix, holding a state dict or
            a training checkpoint (a dict with `state_dict` and perhaps `state_dict_ema`); or a repository on the hub,
            ``hf-hub:owner/name``. Metadata that `model.safetensors` lacks are those of `config.json` beside it.
        ema: take a checkpoint's averaged weights.

    Raises:
        UserError: no such file, damaged, not weights, or a pickle that asks for code, which is not run; see `fetch` for
            the hub.
    """
    path = Path(local_source(path))
    if path.suffix == _SAFETENSORS:
        content, raw_metadata = _read_safetensors(path)
    else:
        content = read_torch_file(path)
        raw_metadata = _metadata_in(content, ema)
    state_dict = strip_wrappers(_pick_state_dict(path, content, ema))
    state_dict = dict(with_todays_quantizers(state_dict, raw_metadata, str(path)))
    if not isinstance(raw_metadata, Mapping):
        beside = metadata_beside(path) if path.name == WEIGHTS_FILE else None
        return WeightsFile(path, state_dict, beside)
    try:
        return WeightsFile(path, state_dict, WeightsMetadata.from_dict(raw_metadata))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _metadata_in(content: object, ema: bool) -> object:
    """Return the metadata in a file of `torch.save`; averaged weights have a confidence of their own."""
    metadata = content.get("metadata") if isinstance(content, Mapping) else None
    if not ema or not isinstance(metadata, Mapping):
        return metadata
    assert isinstance(content, Mapping)
    return {**metadata, "confidence": content.get(CONFIDENCE_OF_EMA)}


def _check_file(path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path}: no such file{suggested_path(path)}")
    if not path.is_file():
        raise UserError(f"{path}: not a file; give a .pth, .pth.tar or .safetensors file")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: may not be read; see its permissions")


def _read_safetensors(path: Path) -> tuple[object, object]:
    _check_file(path)
    try:
        _check_header(path)
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if len(file.keys()) > MOST_ENTRIES:
                raise ValueError("more tensors than any model has")
            content = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError, ValueError, struct.error) as error:
        raise _damaged(path, "a safetensors file") from error
    return content, _parsed(path, header[_HEADER_KEY]) if _HEADER_KEY in header else None


def _check_header(path: Path) -> None:
    """Refuse a header of a size that only its parser's memory would limit."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
    if size > _LARGEST_HEADER:
        raise ValueError(f"a header of {size} bytes")


def _parsed(path: Path, text: str) -> object:
    try:
        metadata = parse_metadata(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(metadata, Mapping):
        raise UserError(f"{path}: its metadata are a {type(metadata).__name__}, not named values")
    return metadata


def read_torch_file(path: Path) -> object:
    """Read a file of `torch.save`: tensors on the CPU and plain values. No code in the pickle is run.

    A digest in the file, as `CheckpointFiles` writes it, is verified.

    Raises:
        UserError: no such file, damaged, or a pickle that asks for more than tensors and plain values.
    """
    _check_file(path)
    if not pickle_is_intact(path):
        raise _damaged(path, "a PyTorch file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on files that are then refused in one line
            with checked_source(path) as source:
                content: object = torch.load(source, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise UserError(
                f"{path}: refused, its pickle asks for {found.group(1)} and no pickle's code is run here; "
                "ask for a .safetensors file, or for the state dict alone"
            ) from None
        raise _damaged(path, "a PyTorch file") from error
    except Exception as error:  # torch.load raises nearly anything on a damaged file
        raise _damaged(path, "a PyTorch file") from error
    if not is_intact(content, path):
        raise UserError(
            f"{path}: damaged, its content differs from its digest; go back to an earlier checkpoint"
        )
    return content


def _damaged(path: Path, kind: str) -> UserError:
    return UserError(f"{path}: damaged, cut short, or not {kind}; fetch it again")


def _pick_state_dict(path: Path, content: object, ema: bool) -> Mapping[str, Tensor]:
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not weights")
    is_checkpoint = "state_dict" in content or "state_dict_ema" in content
    wanted = "state_dict_ema" if ema else "state_dict"
    if ema and wanted not in content:
        raise UserError(f"{path}: holds no averaged weights ({wanted}); ask for the plain ones")
    if is_checkpoint and wanted not in content:
        raise UserError(f"{path}: holds no {wanted}, only averaged weights; ask for those")
    state_dict = content[wanted] if is_checkpoint else content
    check_tensors(state_dict, str(path))
    return state_dict


def strip_wrappers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off the prefixes of `DistributedDataParallel` and `torch.compile` that every key has."""
    stripped = dict(state_dict)
    while wrapper := next((w for w in _WRAPPERS if all(key.startswith(w) for key in stripped)), None):
        stripped = {key.removeprefix(wrapper): tensor for key, tensor in stripped.items()}
    return stripped


def save_weights(
    path: str | os.PathLike[str], state_dict: Mapping[str, Tensor], metadata: WeightsMetadata | None = None
) -> None:
    """Write weights so that the file appears complete or not at all.

    Args:
        path: the file to write; its suffix, .pth, .pth.tar or .safetensors, decides the format. A .pth file
            with metadata is a dict of `state_dict` and `metadata`, without it the state dict itself.
        state_dict: tensors in any layout, on any device.
        metadata: stored with the weights, and returned by `read_weights`.

    Raises:
        UserError: another suffix, or the file can't be written.
    """
    path = Path(path)
    if path.suffix not in (_SAFETENSORS, *_TORCH):
        raise UserError(f"{path}: weights are written as .pth, .pth.tar or .safetensors")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state_dict.items()}
    with atomic_path(path) as temporary:
        try:
            _save(temporary, tensors, metadata)
        except (RuntimeError, safetensors.SafetensorError) as error:  # torch.save: RuntimeError for no folder
            raise OSError(str(error)) from None


def _save(path: Path, tensors: dict[str, Tensor], metadata: WeightsMetadata | None) -> None:
    if path.suffix == _SAFETENSORS:
        header = {_HEADER_KEY: json.dumps(metadata.to_dict())} if metadata else {}
        safetensors.torch.save_file(tensors, path, metadata={"format": "pt", **header})
    else:
        torch.save({"state_dict": tensors, "metadata": metadata.to_dict()} if metadata else tensors, path)
