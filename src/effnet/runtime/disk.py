"""Disks that are full, read-only or gone: one line that says what to do, and further attempts if they are asked for."""

import contextlib
import errno
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from effnet.runtime.errors import UserError
from effnet.runtime.temporary import remove_stale_temporaries, temporary_path

_LOG = logging.getLogger("effnet")
_REMEDIES = {
    errno.ENOSPC: "free some space on its disk, or name a place on another",
    errno.EDQUOT: "the quota is used up; remove files, or name a place on another disk",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EROFS: "its disk can only be read; mount it for writing, or name another place",
    errno.EACCES: "get the right to write there, or name another place",
    errno.EPERM: "get the right to write there, or name another place",
    errno.ENOENT: "make its folder, or mount the disk again if it was there before",
    errno.ENOTDIR: "a part of its path is a file; name another place",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.ESTALE: "its disk is no longer there; mount it again",
    errno.ENODEV: "its disk is no longer there; mount it again",
    errno.ENXIO: "its disk is no longer there; mount it again",
    errno.ENOTCONN: "its disk is no longer there; mount it again",
    errno.EIO: "its disk fails; check it, or name a place on another",
}
DISK_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.ESTALE, errno.ENODEV, errno.EIO}
)
"""values of `OSError.errno` that concern a disk, never the program"""
_PROBE = 1 << 20
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 60.0


class DiskError(UserError):
    """A file that can't be written as the disk is now."""


def cannot_write(what: object, error: OSError) -> DiskError:
    """Return the one-line error for a file that can't be written.

    Args:
        what: the file or files.
        error: the reason.
    """
    remedy = _REMEDIES.get(error.errno or 0)
    return DiskError(f"{what}: can't be written ({error.strerror or error}){f'; {remedy}' if remedy else ''}")


def check_writable(path: Path, *, make_folder: bool = False, flag: str = "") -> None:
    """Refuse a file that can't be written, before the work that it is for begins.

    A megabyte is written beside it on trial. Temporary files that killed processes left there are removed first.

    Args:
        path: the file; one that exists is left as it is.
        make_folder: make its folder if it is missing.
        flag: the flag that names it, for the message.

    Raises:
        DiskError: it can't be written.
    """
    named = f"{flag}: {path}" if flag else path
    if path.is_dir():
        raise cannot_write(named, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(named, error) from None
    remove_stale_temporaries(path.parent)
    if (refusal := trial_write(path)) is not None:
        raise cannot_write(named, refusal)


def check_new_folder(path: Path) -> None:
    """Refuse a folder that has something in it or can't be written, before the work that it is for begins.

    Raises:
        UserError: it exists and is not an empty folder.
        DiskError: it can't be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: exists and is not an empty folder; remove it, or name another")
    if not path.exists():
        check_writable(path, make_folder=True)
    elif (refusal := trial_write(path)) is not None:
        raise cannot_write(path, refusal)


def trial_write(path: Path) -> OSError | None:
    """Return the error of writing a megabyte to a temporary file beside `path`; None if it can be written."""
    trial = temporary_path(path)
    try:
        with trial.open("wb") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return OSError(error.errno, error.strerror)  # without the temporary name
    finally:
        with contextlib.suppress(OSError):
            trial.unlink()
    return None


def check_room(folder: Path, needed: int, purpose: str) -> None:
    """Refuse a disk with too little space.

    Args:
        folder: a folder on the disk; must exist.
        needed: bytes to be written.
        purpose: what they are for, such as `a checkpoint`.

    Raises:
        DiskError: there is less space.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DiskError(
            f"{folder}: {purpose} needs {needed / 1e9:.3f} GB, but only {free / 1e9:.3f} GB are free; "
            "free some space on its disk, or name a place on another"
        )


def retrying(
    write: Callable[[], None], minutes: float, *, wait: Callable[[float], object] = time.sleep
) -> None:
    """Call `write`, and again while the disk does not take its file, with growing pauses.

    Args:
        write: is called until it raises no `DiskError`.
        minutes: for how long to try; 0 for one attempt.
        wait: called with the seconds of each pause.

    Raises:
        DiskError: that of the last attempt.
    """
    end = time.monotonic() + 60 * minutes
    pause = _FIRST_PAUSE_S
    while True:
        try:
            return write()
        except DiskError as error:
            left = end - time.monotonic()
            if left <= 0:
                raise
            pause_now = min(pause, left)
            _LOG.warning(
                "%s; next attempt in %.0f s, giving up in %.1f minutes (--write-retry)",
                error,
                pause_now,
                left / 60,
            )
        wait(pause_now)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
