"""Exported folders: written whole or not at all, over an earlier one of the same format only."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from effnet.runtime.disk import check_writable
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_folder


def check_package_place(path: Path, *, suffix: str, mark: str, format_name: str) -> None:
    """Check that a package can be written.

    Args:
        path: the folder.
        suffix: end of such a folder's name.
        mark: a file that every package of the format has.
        format_name: of the format, for messages.

    Raises:
        UserError: another suffix, another folder in its place, or a place that can't be written.
    """
    if path.suffix != suffix:
        raise UserError(f"{path}: packages of {format_name} end in {suffix}")
    if path.exists() and not (path / mark).is_file():
        raise UserError(f"{path}: exists and is no package of {format_name}; remove it, or name another")
    check_writable(path.with_name(f"new.{path.name}"), make_folder=True)


@contextmanager
def atomic_package(path: Path) -> Iterator[Path]:
    """A temporary folder, which takes the place of an earlier package when the block ends without an error."""
    with atomic_folder(path) as package:
        yield package
        if path.exists():
            shutil.rmtree(path)


def package_size(path: Path) -> int:
    """Return the bytes of a package's files."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
