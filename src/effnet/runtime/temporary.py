"""Names of temporary files, from which a later run sees whether the process that wrote them still lives.

A process that is killed leaves its temporary files behind. Their names hold the machine, the process and the time it
was started, because a number of a process is soon given to another, in a container even to the next run.
"""

import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

_NAME = re.compile(
    r"\.effnet-(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-(?P<started>\d+)-[0-9a-f]{8}\..+", re.DOTALL
)
_ABANDONED_S = 3600
_UNKNOWN = 0


def temporary_prefix() -> str:
    """Return the first part of temporary names; no two calls on any machine return the same."""
    process = os.getpid()
    return f".effnet-{_machine()}-{process}-{_started(process)}-{secrets.token_hex(4)}"


def temporary_path(path: Path) -> Path:
    """Return a temporary path beside `path` that ends in its name."""
    return path.with_name(f"{temporary_prefix()}.{path.name}")


def remove_stale_temporaries(folder: Path) -> None:
    """Remove the temporary files and folders in `folder` whose processes no longer live.

    Those of another machine or container, whose processes can't be seen, are removed when nothing has been written to
    them for an hour. What can't be removed stays, without an error.

    Args:
        folder: is searched without its subfolders; need not exist.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _is_stale(entry):
                _remove(entry)


def _is_stale(entry: "os.DirEntry[str]") -> bool:
    name = _NAME.fullmatch(entry.name)
    if name is None:
        return False
    started = int(name["started"])
    if name["machine"] == _machine() and started != _UNKNOWN:
        return _started(int(name["process"])) != started
    try:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_S
    except OSError:
        return False


def _remove(entry: "os.DirEntry[str]") -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(entry)


@functools.cache
def _machine() -> str:
    """Return a hash that differs where the numbers of processes mean others: of the host and the container."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return hashlib.blake2b(f"{socket.gethostname()}\0{namespace}".encode(), digest_size=4).hexdigest()


def _started(process: int) -> int:
    """Return when a process was started, in the kernel's clock ticks; `_UNKNOWN` if it is dead, or without /proc."""
    try:
        # The name of the program, in brackets, may hold spaces and brackets.
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return _UNKNOWN
    return _UNKNOWN if fields[0] in (b"Z", b"X") else int(fields[19])
