"""A file of lines that keeps what a full disk does not take, and writes it when there is space again."""

import logging
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from effnet.runtime.disk import DiskError, cannot_write

_LOG = logging.getLogger("effnet")


class LineFile:
    """A UTF-8 text file that is written line by line.

    Lines that can't be written are kept in memory, and written by a later call: a run goes on while its log's disk is
    full. A warning is given when that begins.

    Args:
        path: the file; its folder is made if it is missing.
        append: add to an existing file instead of replacing it; a last line without an end, which a killed process or
            a full disk has left, is removed.
        after: position of this file, of which what follows is removed, as it will be written again; without effect
            where the file does not hold the lines before it.

    Attributes:
        goes_on: the file holds the lines before `after`.

    Raises:
        DiskError: the file can't be opened for writing.
    """

    def __init__(self, path: Path, *, append: bool, after: Mapping[str, int] | None = None) -> None:
        self.goes_on = False
        self._path = path
        self._bytes = self._checksum = 0
        self._waiting = bytearray()
        self._warned = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if append and path.is_file():
                self._cut(after or {})
            self._file = path.open("ab" if append else "wb", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from None

    def write(self, line: str) -> None:
        """Add a line, which goes to the file at once if the disk takes it."""
        encoded = line.encode() + b"\n"
        self._waiting += encoded
        self._bytes, self._checksum = self._bytes + len(encoded), zlib.crc32(encoded, self._checksum)
        try:
            self._write_waiting()
            self._warned = False
        except OSError as error:
            if not self._warned:
                _LOG.warning("%s; its lines are kept until it can", cannot_write(self._path, error))
            self._warned = True

    def position(self) -> dict[str, int]:
        """Return the end of the file, for `after`: its length in bytes, and a checksum of the lines before it."""
        return {"bytes": self._bytes, "crc32": self._checksum}

    def _cut(self, after: Mapping[str, int]) -> None:
        content = self._path.read_bytes()
        start = content[: after.get("bytes", 0)]
        self.goes_on = bool(start) and _position_of(start) == after
        kept = start if self.goes_on else content[: content.rfind(b"\n") + 1]
        os.truncate(self._path, len(kept))
        self._bytes, self._checksum = _position_of(kept).values()

    def close(self) -> None:
        """Write what is waiting, and close the file.

        Raises:
            DiskError: lines are lost.
        """
        try:
            self._write_waiting()
        except OSError as error:
            lost = self._waiting.count(b"\n")
            raise DiskError(f"{cannot_write(self._path, error)}; its last {lost} lines are lost") from None
        finally:
            self._file.close()

    def _write_waiting(self) -> None:
        while self._waiting:
            # As much of a line as the disk takes; the rest of it comes first the next time.
            written = self._file.write(bytes(self._waiting))
            del self._waiting[:written]


def _position_of(content: bytes) -> dict[str, int]:
    return {"bytes": len(content), "crc32": zlib.crc32(content)}
