"""Checks of a file of `torch.save` before it is unpickled: it must not stand for more than is in it.

No pickle's code is run (`torch.load(..., weights_only=True)`), but a small file could still fill the memory: an archive
may be compressed, and two of the functions that PyTorch allows make as much out of a few bytes as they are told to.
"""

import io
import mmap
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from effnet.runtime.errors import UserError

_MOST_PICKLED = 2 << 20  # bytes and instructions; a checkpoint of the largest model has half of them
_ARCHIVE = b"PK\x03\x04"
_UNBOUNDED = re.compile(rb"c(?:__builtin__|builtins)\nbytearray\n|c_codecs\nencode\n")


class PickleFile(io.BufferedReader):
    """A file whose pickle may have so many instructions and no more.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._left = _MOST_PICKLED

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes; the unpickler reads each instruction by itself."""
        self._left -= 1
        if self._left < 0:
            raise ValueError("more instructions than a pickle of weights has")
        return super().read(size)


@contextmanager
def checked_source(path: Path) -> Iterator[Path | PickleFile]:
    """Check a file of `torch.save`; then yield what `torch.load` is to read it from.

    Args:
        path: an existing file; one that is no archive, as old versions of PyTorch wrote them, is bounded as it is read.

    Raises:
        UserError: a pickle of several megabytes, or one that asks for memory.
        OSError, ValueError, zipfile.BadZipFile: the file can't be read, or its entries are compressed or overlap.
    """
    with PickleFile(path) as file:
        if file.peek(len(_ARCHIVE)).startswith(_ARCHIVE):
            with zipfile.ZipFile(path) as archive:
                _check_pickle(path, _checked_pickle(path, archive))
            yield path
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _check_pickle(path, content)
            yield file


def _check_pickle(path: Path, pickled: bytes | mmap.mmap) -> None:
    if _UNBOUNDED.search(pickled):
        raise UserError(
            f"{path}: refused, its pickle asks for memory of any size; ask for a .safetensors file"
        )


def _checked_pickle(path: Path, archive: zipfile.ZipFile) -> bytes:
    """Check an archive's entries, and return its pickle."""
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("entries that are compressed, which PyTorch's are not")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("entries that are larger than the file")
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    if sum(entry.file_size for entry in pickles) > _MOST_PICKLED:
        raise UserError(
            f"{path}: refused, a pickle of more than {_MOST_PICKLED >> 20} MiB is not one of weights"
        )
    return b"".join(archive.read(entry) for entry in pickles)
