"""One writer per workspace: a lock that a killed process does not leave behind."""

import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.runtime.errors import UserError

if TYPE_CHECKING:
    from effnet.runtime.processes import Processes

NAME = ".effnet-run.lock"
"""name of the lock's file in a workspace"""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_TAKEN = (errno.EACCES, errno.EAGAIN)

_held: set[Path] = set()
"""files that this process has locked, from which the system's lock does not keep itself; must not be opened again"""


@contextmanager
def locked(workspace: Path) -> Iterator[None]:
    """Hold a workspace within the block, so that no other run writes to it.

    The lock is the system's, a record lock (POSIX) on a file in the workspace. It ends with the process, however that
    ends; forked children do not inherit it; it works between the machines that share a folder by NFS. The file names
    the process for the message, is removed at the end, and locks nothing by itself. A file system without locks gets a
    warning and no protection.

    Args:
        workspace: an existing folder.

    Raises:
        UserError: another run holds it, or the file can't be written.
    """
    path = workspace.resolve() / NAME
    if path in _held:
        raise UserError(f"--workspace {workspace} is in use by this process; name another folder")
    try:
        descriptor = _taken(path)
    except OSError as error:
        if error.errno in _TAKEN:
            raise UserError(
                f"--workspace {workspace} is in use by {_holder(path)}; wait for it, or name another folder"
            ) from None
        raise UserError(f"--workspace {workspace}: can't lock {path.name}: {error.strerror}") from None
    _held.add(path)
    try:
        _describe(descriptor)
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is locked: afterwards a file of that name may be another run's
        _held.discard(path)
        os.close(descriptor)


@contextmanager
def one_writer(workspace: Path, processes: "Processes") -> Iterator[None]:
    """Hold a workspace for all processes of a run within the block; all must call this together.

    Raises:
        UserError: see `locked`; every process raises it.
    """
    with ExitStack() as stack:
        failure = ""
        if processes.is_main:
            try:
                stack.enter_context(locked(workspace))
            except UserError as error:
                failure = str(error)
        if failure := "".join(processes.gather(failure)):
            raise UserError(failure)
        yield


def _taken(path: Path) -> int:
    """Return a descriptor of the file at `path`, which is locked.

    Raises:
        OSError: another process has locked it, among other reasons.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(descriptor, path)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed by the run that held it before


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        print(f"warning: {path.parent} has no file locks; start only one run in it", file=sys.stderr)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _describe(descriptor: int) -> None:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"process": os.getpid(), "host": socket.gethostname(), "started": started}
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, (json.dumps(content) + "\n").encode(), 0)


def _holder(path: Path) -> str:
    """Describe the process that has locked a file."""
    try:
        held_by = json.loads(path.read_text(encoding="utf-8"))
        process, host, started = int(held_by["process"]), str(held_by["host"]), str(held_by["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"
    return f"process {process} on {host}, started {started}"
