"""The launcher of a run's processes, `multiproc.py`, and what they leave for it to report.

All processes of a run meet the same error. Each leaves its message in the launcher's folder, and the launcher prints
each message once.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from effnet.runtime.errors import UserError
from effnet.runtime.files import write_text

_VARIABLE = "EFFNET_LAUNCHER"


class Ending(NamedTuple):
    """The end of a process of the run."""

    code: int
    message: str


@dataclass(frozen=True)
class Launcher:
    """A launcher that reports how the processes it has started ended.

    Attributes:
        process: its process id.
        folder: where the processes leave their messages.
    """

    process: int
    folder: Path

    @classmethod
    def found(cls) -> "Launcher | None":
        """Return the launcher that started this process; None without one."""
        process, _, folder = os.environ.get(_VARIABLE, "").partition(":")
        return cls(int(process), Path(folder)) if folder else None

    @classmethod
    @contextmanager
    def opened(cls) -> Iterator["Launcher"]:
        """Make this process the launcher of the processes that are started within the block."""
        with tempfile.TemporaryDirectory(prefix="effnet-", ignore_cleanup_errors=True) as folder:
            launcher = cls(os.getpid(), Path(folder))
            os.environ[_VARIABLE] = f"{launcher.process}:{folder}"
            try:
                yield launcher
            finally:
                del os.environ[_VARIABLE]

    def leave(self, ending: Ending, rank: int) -> bool:
        """Leave the message of process `rank`; return False where the launcher can't report it.

        It can't when it has ended, and does not when it starts the processes again.
        """
        restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
        if restarts or os.getppid() != self.process:
            return False
        try:
            write_text(self.folder / f"{rank:06d}", json.dumps(ending))
        except UserError:
            return False
        return True

    def endings(self) -> list[Ending]:
        """Return what the processes have left, in the order of their ranks."""
        left = []
        for file in sorted(self.folder.glob("[0-9]*")):
            with suppress(OSError, ValueError, TypeError):
                left.append(Ending(*json.loads(file.read_text(encoding="utf-8"))))
        return left
