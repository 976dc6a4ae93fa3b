"""One process at a time, over all machines that share a folder."""

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

_LOG = logging.getLogger("effnet")
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
NAME = ".effnet.lock"
"""name of the lock in a folder that one process writes at a time"""


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; wait while another does. Made if it is missing.

    The lock is the system's, on a file in the folder that is removed at the end: a killed process leaves at most the
    file, which locks nothing. On a file system without locks there is a warning, and no protection.

    Raises:
        OSError: the folder can't be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    held = _locked(path)
    try:
        yield
    finally:
        # Before the lock is released, for a file of that name may be another's afterwards.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(held)


def _locked(path: Path) -> int:
    """Return a descriptor of the locked file at `path`."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor, path)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed by the process that held it before


def _lock(descriptor: int, path: Path) -> None:
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.warning("%s: waiting for another process that writes there", path.parent)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _LOG.warning("%s has no file locks; write there by one process at a time", path.parent)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
