"""A file of lines that keeps what a full disk does not take, and writes it when there is space again."""

import logging
import os
from pathlib import Path

from effnet.runtime.disk import DiskError, cannot_write

_LOG = logging.getLogger("effnet")
_BLOCK = 1 << 16


class LineFile:
    """A UTF-8 text file that is written line by line.

    Lines that can't be written are kept in memory, and written by a later call: a run goes on while its log's disk is
    full. A warning is given when that begins.

    Args:
        path: the file; its folder is made if it is missing.
        append: add to an existing file instead of replacing it; a last line without an end, which a killed process or
            a full disk has left, is removed.

    Raises:
        DiskError: the file can't be opened for writing.
    """

    def __init__(self, path: Path, *, append: bool) -> None:
        self._path = path
        self._waiting = bytearray()
        self._warned = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if append and path.is_file():
                _cut_torn_line(path)
            self._file = path.open("ab" if append else "wb", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from None

    def write(self, line: str) -> None:
        """Add a line, which goes to the file at once if the disk takes it."""
        self._waiting += line.encode() + b"\n"
        try:
            self._write_waiting()
            self._warned = False
        except OSError as error:
            if not self._warned:
                _LOG.warning("%s; its lines are kept until it can", cannot_write(self._path, error))
            self._warned = True

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


def _cut_torn_line(path: Path) -> None:
    """Remove what stands after the last end of a line."""
    with path.open("rb+") as file:
        end = keep = file.seek(0, os.SEEK_END)
        found = -1
        while keep > 0 and found < 0:
            start = max(0, keep - _BLOCK)
            file.seek(start)
            found = file.read(keep - start).rfind(b"\n")
            keep = start + found + 1
        if keep < end:
            file.truncate(keep)
