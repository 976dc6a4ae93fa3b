"""Files that appear complete or not at all: the one place that replaces a file by a finished temporary one."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from effnet.runtime.errors import UserError


@contextlib.contextmanager
def atomic_paths(
    *paths: Path, scratch: Path | None = None, make_folder: bool = False
) -> Iterator[tuple[Path, ...]]:
    """Temporary paths to write to, which replace `paths` when the block ends without an error.

    The temporary names are unique, so that processes may write the same file at the
    same time; they end in the final names, because many writers choose a format by the suffix, and share their first
    part. On any error, KeyboardInterrupt included, the temporary files are removed and `paths` stay as they were.

    Args:
        paths: the files, each of which the block must write.
        scratch: folder for the temporary files, on the same file system; by default each lies beside its target.
        make_folder: make the folders of `paths` where they are missing.

    Yields:
        One temporary path for each of `paths`.

    Raises:
        UserError: a file can't be written.
    """
    token = f".{os.getpid()}-{secrets.token_hex(4)}"
    temporary = tuple((scratch or path.parent) / f"{token}.{path.name}" for path in paths)
    try:
        if make_folder:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for written in temporary:
            _flush_to_disk(written)
        for written, path in zip(temporary, paths, strict=True):
            move_into_place(written, path)
    except OSError as error:
        if not _is_about(error, {*temporary, *paths, *(folder for path in paths for folder in path.parents)}):
            raise
        names = ", ".join(map(str, paths))
        raise UserError(f"{names}: can't be written ({error.strerror or error})") from None
    finally:
        for written in temporary:
            with contextlib.suppress(OSError):
                written.unlink()


@contextlib.contextmanager
def atomic_path(path: Path, *, scratch: Path | None = None, make_folder: bool = False) -> Iterator[Path]:
    """A temporary path for one file; see `atomic_paths`."""
    with atomic_paths(path, scratch=scratch, make_folder=make_folder) as (temporary,):
        yield temporary


@contextlib.contextmanager
def atomic_file(path: Path, mode: str = "wb", *, scratch: Path | None = None) -> Iterator[IO[Any]]:
    """An open temporary file, which replaces `path` when the block ends without an error; see `atomic_paths`.

    Args:
        path: the file.
        mode: `wb`, or `w` for UTF-8 text whose line ends are written as they are.
        scratch: folder for the temporary file.

    Raises:
        UserError: the file can't be written.
    """
    # File names among the text may have bytes that are not UTF-8, which are written as they are.
    utf8 = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}
    text: dict[str, Any] = {} if "b" in mode else utf8
    with atomic_path(path, scratch=scratch) as temporary, temporary.open(mode, **text) as file:
        yield file


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; see `atomic_file`."""
    with atomic_file(path, "w") as file:
        file.write(text)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def move_into_place(finished: Path, path: Path) -> None:
    """Rename a finished file or folder; for work that a later run resumes under a fixed temporary name.

    Args:
        finished: on the same file system as `path`.
        path: final name; an existing file is replaced, a folder only if it is empty.
    """
    os.replace(finished, path)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _is_about(error: OSError, places: set[Path]) -> bool:
    """Return False for an error that names another file, such as one that the block reads."""
    name = error.filename
    return not isinstance(name, str | os.PathLike) or Path(name) in places
