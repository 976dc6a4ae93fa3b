"""One writer per folder: locks that a killed process does not leave behind.

The lock is the system's, a record lock (POSIX) on a file in the folder. It ends with the process, however that ends;
forked children do not inherit it; it works between the machines that share a folder by NFS. The file is removed at the
end, and locks nothing by itself. A file system without locks gets a warning and no protection.
"""

import errno
import fcntl
import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.runtime.errors import UserError

if TYPE_CHECKING:
    from effnet.runtime.processes import Processes

NAME = ".effnet-run.lock"
"""name of the lock's file in a workspace"""
PREPARATION = ".effnet.lock"
"""name of the lock's file in a folder that is being prepared"""
_LOG = logging.getLogger("effnet")
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_TAKEN = (errno.EACCES, errno.EAGAIN)
_FLOCK = "hhqqi4x"  # struct flock of Linux on machines of 64 bits: type, whence, start, length, process

_held: set[Path] = set()
"""files that this process has locked, from which the system's lock does not keep itself; must not be opened again"""


@contextmanager
def locked(workspace: Path) -> Iterator[None]:
    """Hold a workspace within the block, so that no other run writes to it.

    The lock's file names this process, for the message that refuses the other run.

    Args:
        workspace: an existing folder.

    Raises:
        UserError: another run holds it, or the file can't be written.
    """
    path = workspace.resolve() / NAME
    if path in _held:
        raise UserError(f"--workspace {workspace} is in use by this process; name another folder")
    try:
        descriptor = _taken(path, _lock_or_refuse)
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
        _held.discard(path)
        _release(descriptor, path)


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


@contextmanager
def exclusive(folder: Path, name: str = PREPARATION, *, make: bool = True) -> Iterator[None]:
    """Hold a folder, or a part of the work in it, within the block; wait while another process does.

    Args:
        folder: the folder.
        name: name of the lock's file, one for each part of the work.
        make: make the folder if it is missing.

    Raises:
        OSError: the folder can't be made or written, or is missing.
    """
    if make:
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    descriptor = _taken(path, _lock_or_wait)
    try:
        yield
    finally:
        _release(descriptor, path)


def _taken(path: Path, lock: Callable[[int, Path], None]) -> int:
    """Return a descriptor of the file at `path`, which is locked.

    Raises:
        OSError: another process has locked it and `lock` does not wait, among other reasons.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                lock(descriptor, path)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                _LOG.warning("%s has no file locks; write there by one process at a time", path.parent)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed by the process that held it before


def _lock_or_refuse(descriptor: int, _path: Path) -> None:
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_or_wait(descriptor: int, path: Path) -> None:
    try:
        _lock_or_refuse(descriptor, path)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        _LOG.warning("%s: waiting for another process that writes there", path.parent)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)


def _release(descriptor: int, path: Path) -> None:
    with suppress(OSError):
        path.unlink()  # while it is locked: afterwards a file of that name may be another's
    os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _describe(descriptor: int) -> None:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"process": os.getpid(), "host": here(), "started": started}
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


@dataclass(frozen=True)
class Holder:
    """The process that holds a workspace, or held it when it was killed.

    Attributes:
        process: its number on its machine.
        host: name of the machine.
        lives: it holds the workspace now, as far as this machine sees.
    """

    process: int
    host: str
    lives: bool


def holder(workspace: Path) -> Holder | None:
    """Return the process that holds a workspace; one that was killed leaves its name; None where there is none."""
    path = workspace.resolve() / NAME
    if path in _held:
        return Holder(os.getpid(), here(), True)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        held_by = json.loads(os.read(descriptor, 10_000))
        process, host = int(held_by["process"]), str(held_by["host"])
        return Holder(process, host, _is_locked(descriptor, process, host))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    finally:
        os.close(descriptor)


def here() -> str:
    """Return the name of this machine, as `Holder` has it."""
    return socket.gethostname()


def _is_locked(descriptor: int, process: int, host: str) -> bool:
    """Return True if another process has locked a file. The question takes no lock, which would refuse a run."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        kind: int = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[0]
        return kind != fcntl.F_UNLCK
    except OSError:  # no locks on this file system
        return host == here() and Path(f"/proc/{process}").exists()
