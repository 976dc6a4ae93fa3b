"""A disk that is full when a test wants it to be."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from effnet.runtime import files
from effnet.training import checkpoint


class SmallDisk:
    """A tmpfs of its own, where mounting is allowed.

    Attributes:
        root: its folder.
        is_real: False for the substitute, which refuses files of more than `LARGEST` bytes while it is full.
    """

    LARGEST = 200_000

    def __init__(self, root: Path, megabytes: int) -> None:
        self.root = root
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(root)]
        self.is_real = (
            shutil.which("mount") is not None and not subprocess.run(command, capture_output=True).returncode
        )
        self._filler = root / "filler"
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def needs_mount(self) -> None:
        """Skip a test that the substitute can't stand in for."""
        if not self.is_real:
            pytest.skip("needs a file system of its own, and mounting is not allowed here")

    def fill(self) -> None:
        """Leave no space, to the byte but for the last page of each file."""
        if not self.is_real:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.LARGEST, self._limits[1]))
            return
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        """Give the space back."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        self._filler.unlink(missing_ok=True)

    def remount(self, *options: str) -> None:
        """Mount it with other options, such as `ro`."""
        subprocess.run(["mount", "-o", ",".join(("remount", *options)), str(self.root)], check=True)

    def vanish(self) -> None:
        """Take it away, as when a network's file system is lost."""
        subprocess.run(["umount", "--lazy", str(self.root)], check=True)
        self.is_real = False

    def close(self) -> None:
        """Take it away at the end of a test."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        if self.is_real:
            self.vanish()


@contextlib.contextmanager
def small_disk(root: Path, megabytes: int) -> Iterator[SmallDisk]:
    """A disk for the length of a block."""
    root.mkdir()
    disk = SmallDisk(root, megabytes)
    try:
        yield disk
    finally:
        disk.close()


def before_writing(
    monkeypatch: pytest.MonkeyPatch, name: str, do: Callable[[], None], *, time: int = 1
) -> list[Path]:
    """Have something done just before a file of a name is written for the `time`-th time.

    Returns:
        The paths that have been written under that name, so far.
    """
    written: list[Path] = []
    original = files.atomic_paths

    @contextlib.contextmanager
    def watched(*paths: Path, **options: Any) -> Iterator[tuple[Path, ...]]:
        for path in paths:
            if path.name == name:
                written.append(path)
                if len(written) == time:
                    do()
        with original(*paths, **options) as temporary:
            yield temporary

    for module in (files, checkpoint):
        monkeypatch.setattr(module, "atomic_paths", watched)
    return written


def left_behind(folder: Path) -> list[str]:
    """Names of temporary files and folders, and of locks, below a folder."""
    return sorted(
        name for _, folders, names in os.walk(folder) for name in (*folders, *names) if name.startswith(".")
    )
