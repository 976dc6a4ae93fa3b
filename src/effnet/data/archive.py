"""Tar and zip archives that are read in place: an index of their members, and the content of each by itself.

Members are read by `os.pread`, which moves no position that processes could share, from a file that each process opens
for itself. Nothing is ever unpacked to a path, so no name in an archive can reach outside of it.
"""

import functools
import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from effnet.runtime.errors import UserError, one_line
from effnet.runtime.text import printable

TARS = (".tar",)
ZIPS = (".zip",)
COMPRESSED_TARS = (
    *(".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4", ".tar.lzma", ".tar.z"),
    *(".tgz", ".tbz", ".tbz2", ".txz", ".tzst"),
)

RECORD = np.dtype([("start", "<i8"), ("stored", "<i8"), ("size", "<i8"), ("crc", "<u4"), ("method", "<u1")])
"""of a member: where it is (of a zip its local header, else its data), its bytes in the archive and unpacked"""

_TAR = 255  # a method that no zip has: no header before the data, no checksum
_METHODS = (_TAR, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 1
_MOST_OF_HEADER = 1 << 20  # bytes of a name or of extended attributes in a tar
_BLOCK = 512
_MOST_BYTES = 1 << 62


class MemberError(ValueError):
    """A member that can't be read; the text says why, on one line."""


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: its path, with slashes.
        record: of `RECORD`.
    """

    name: str
    record: tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Archive:
    """An archive on a local disk.

    Attributes:
        path: the file.
    """

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return Archive, (self.path,)

    @functools.cached_property
    def _opened(self) -> io.FileIO:
        return io.FileIO(self.path)

    def content(self, record: npt.NDArray[Any], at_most: int) -> bytes:
        """Return the content of a member.

        Args:
            record: one element of dtype `RECORD`.
            at_most: bytes that it may have.

        Raises:
            MemberError: it is larger, packed in a way that is not read here, or damaged.
        """
        start, stored, size, crc, method = record.tolist()
        if max(stored, size) > at_most:
            raise MemberError(f"{max(stored, size):,} bytes are more than --max-pixels allows ({at_most:,})")
        if method not in _METHODS:
            raise MemberError("packed by a method other than Deflate; pack it again (zip -0)")
        try:
            if method != _TAR:
                start = self._data_start(start)
            data = os.pread(self._opened.fileno(), stored, start)
        except OSError as error:
            raise MemberError(error.strerror or one_line(error)) from None
        if len(data) != stored:
            raise MemberError("the archive ends within it")
        return data if method == _TAR else _unpacked(data, size, crc, method)

    def _data_start(self, header_at: int) -> int:
        header = os.pread(self._opened.fileno(), _LOCAL_HEADER.size, header_at)
        if len(header) < _LOCAL_HEADER.size or header[:4] != _LOCAL_MAGIC:
            raise MemberError("the archive is damaged: its directory points to no member")
        _, name, extra = _LOCAL_HEADER.unpack(header)
        return int(header_at + _LOCAL_HEADER.size + name + extra)


def _unpacked(data: bytes, size: int, crc: int, method: int) -> bytes:
    if method == zipfile.ZIP_DEFLATED:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            data = unpacker.decompress(data, size + 1)
        except zlib.error:
            raise MemberError("damaged: it can't be unpacked") from None
    if len(data) != size or zlib.crc32(data) != crc:
        raise MemberError("damaged: it has not the checksum that the archive states")
    return data


def is_archive(path: Path) -> bool:
    """Return True if a path is named like an archive, also like one that `members` refuses because it is compressed."""
    name = path.name.lower()
    return name.endswith((*TARS, *ZIPS, *COMPRESSED_TARS)) and path.is_file()


def members(path: Path) -> Iterator[Member]:
    """Yield the files of an archive, without those that are neither regular files nor links.

    Raises:
        UserError: it can't be read, is compressed as a whole, damaged, or holds a link, an encrypted or sparse member,
            or one whose name leads out of it.
    """
    if path.name.lower().endswith(COMPRESSED_TARS):
        raise UserError(
            f"{path}: a compressed tar can't be read at any place; unpack it, or pack the images as .tar or .zip "
            "(images are compressed themselves)"
        )
    listed = _zip_members if path.name.lower().endswith(ZIPS) else _tar_members
    try:
        yield from listed(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or one_line(error)}") from None
    except MemoryError:
        raise UserError(f"{path}: damaged, it asks for more memory than there is") from None
    except Exception as error:  # both modules raise nearly anything on a damaged archive
        kind = path.suffix.removeprefix(".")
        raise UserError(f"{path}: damaged, or no {kind} archive ({one_line(error)})") from None


def _zip_members(path: Path) -> Iterator[Member]:
    end = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            name = info.filename.replace("\\", "/")
            if info.flag_bits & _ENCRYPTED:
                raise UserError(f"{path}: {printable(name)} is encrypted; pack it without a password")
            if (info.external_attr >> 16) & 0o170000 == 0o120000:
                raise _link(path, name)
            if not 0 <= info.header_offset <= end - info.compress_size or info.file_size >= _MOST_BYTES:
                raise UserError(f"{path}: damaged, {printable(name)} is not within it; pack or copy it again")
            yield Member(
                _checked(path, name),
                (info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type & 0xFF),
            )


def _tar_members(path: Path) -> Iterator[Member]:
    with _Headers(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # else all of them are kept
            if info.issparse():
                raise UserError(
                    f"{path}: {printable(info.name)} is stored with holes; pack it without --sparse"
                )
            if info.issym() or info.islnk():
                raise _link(path, info.name)
            if info.isreg():
                yield Member(_checked(path, info.name), (info.offset_data, info.size, info.size, 0, _TAR))
        # `next` takes a damaged header for the archive's end.
        file.seek(archive.offset)
        if any(file.read(_BLOCK)):
            raise UserError(f"{path}: damaged at byte {archive.offset:,}; pack or copy it again")


class _Headers(io.BufferedReader):
    """A file of which no read returns more than a header may have."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes."""
        return super().read(min(_MOST_OF_HEADER, _MOST_OF_HEADER if size is None or size < 0 else size))


def _link(path: Path, name: str) -> UserError:
    return UserError(
        f"{path}: {printable(name)} is a link; pack the files themselves (tar --dereference --hard-dereference)"
    )


def _checked(path: Path, name: str) -> str:
    if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/") or "\0" in name:
        raise UserError(f"{path}: {printable(name)} is no path within an archive; pack the images again")
    return name
