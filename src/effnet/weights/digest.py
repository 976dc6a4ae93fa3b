"""Damage to files of `torch.save`, noticed by a digest that a checkpoint holds: SHA-256 of its whole content."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Two entries, so that a fault in the name of one can't turn the file into one without a digest.
_DIGEST, _ALGORITHM = "digest", "digest_algorithm"
_SHA256 = "sha256"
_PLAIN = (str, bytes, int, float, bool, type(None))
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checkpoint's content with the entries `digest` and `digest_algorithm`.

    Args:
        content: tensors on the CPU and plain values, in dicts, lists and tuples.

    Raises:
        TypeError: the content holds something else.
    """
    body = {key: value for key, value in content.items() if key != _DIGEST} | {_ALGORITHM: _SHA256}
    return {**body, _DIGEST: _digest(body)}


def pickle_is_intact(path: Path) -> bool:
    """Return False if a file's pickle differs from its checksum; True if it has none.

    The pickle names the content: damage to it might leave an entry or the digest out, or ask for other code.
    """
    try:
        if not zipfile.is_zipfile(path):
            return True  # PyTorch's old format
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                is_pickle = entry.filename.endswith("/data.pkl") and entry.compress_type == zipfile.ZIP_STORED
                if is_pickle and entry.CRC != 0:  # which PyTorch leaves out on request
                    archive.read(entry)
        return True
    except Exception:  # zipfile raises nearly anything on a damaged file
        return False


def is_intact(content: object, path: Path) -> bool:
    """Return False if a file's content differs from the digest in it; True if it has none.

    Args:
        content: content of the file as `torch.load` returned it.
        path: the file.
    """
    if not isinstance(content, Mapping):
        return True
    if not any(isinstance(content.get(key), str) for key in (_DIGEST, _ALGORITHM)):
        return True
    body = {key: value for key, value in content.items() if key != _DIGEST}
    try:
        # Content that claims to be larger than its file is not hashed: it would ask for hours of work.
        return bool(_digest(body, path.stat().st_size) == content.get(_DIGEST))
    except (TypeError, ValueError, RuntimeError):  # RecursionError is a RuntimeError
        return False


def _digest(content: Mapping[Any, Any], limit: int | None = None) -> str:
    digest = _Digest(limit)
    digest.add(content)
    return digest.hex()


class _Digest:
    """SHA-256 over types, lengths, shapes and values, in the order of the content.

    Args:
        limit: bytes of tensors and text, and other values, that may be added; None for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._sha = hashlib.sha256()
        self._left = limit

    def hex(self) -> str:
        return self._sha.hexdigest()

    def add(self, value: object) -> None:
        """Add a value and all that it holds.

        Raises:
            TypeError: it holds something other than dense tensors and plain values.
            ValueError: it is beyond the limit.
        """
        if isinstance(value, Tensor):
            self._add_tensor(value)
        elif isinstance(value, Mapping):
            self._add_line(f"dict {len(value)}")
            for key, entry in value.items():
                self.add(key)
                self.add(entry)
        elif isinstance(value, list | tuple):
            self._add_line(f"{'list' if isinstance(value, list) else 'tuple'} {len(value)}")
            for entry in value:
                self.add(entry)
        elif type(value) in _PLAIN:
            self._spend(len(value) if isinstance(value, str | bytes) else 0)
            self._add_line(f"{type(value).__name__} {value!r}")
        else:
            raise TypeError(f"a checkpoint can't hold a {type(value).__name__}")

    def _add_tensor(self, tensor: Tensor) -> None:
        if tensor.layout != torch.strided or tensor.element_size() not in _INTEGERS:
            raise TypeError(f"a checkpoint can't hold a tensor of {tensor.layout}, {tensor.dtype}")
        self._spend(tensor.numel() * tensor.element_size())
        self._add_line(f"tensor {tensor.dtype} {tuple(tensor.shape)}")
        # As integers, because NumPy lacks some of the types, and in NumPy, which starts no threads of its own.
        integers = tensor.detach().view(_INTEGERS[tensor.element_size()]).numpy()
        self._sha.update(np.ascontiguousarray(integers).data)

    def _add_line(self, line: str) -> None:
        self._spend(1)
        self._sha.update(f"{line}\n".encode(errors="surrogatepass"))

    def _spend(self, amount: int) -> None:
        if self._left is not None:
            self._left -= amount
            if self._left < 0:
                raise ValueError("more content than the file can hold")
