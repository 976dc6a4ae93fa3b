"""Files that appear complete or not at all: the one place that replaces a file by a finished temporary one."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from effnet.runtime.disk import DISK_ERRORS, cannot_write, trial_write
from effnet.runtime.errors import UserError
from effnet.runtime.temporary import temporary_path, temporary_prefix


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
        DiskError: a file can't be written, whatever error the library that writes it makes of that.
    """
    prefix = temporary_prefix()
    temporary = tuple((scratch or path.parent) / f"{prefix}.{path.name}" for path in paths)
    try:
        if make_folder:
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for written in temporary:
            _flush_to_disk(written)
        for written, path in zip(temporary, paths, strict=True):
            move_into_place(written, path)
    except UserError:
        raise
    except Exception as error:
        cause = _of_the_disk(error, temporary[0])
        if cause is None or not _is_about(
            cause, {*temporary, *paths, *(folder for path in (*paths, *temporary) for folder in path.parents)}
        ):
            raise
        raise cannot_write(", ".join(map(str, paths)), cause) from None
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


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder, which becomes `path` when the block ends without an error, and is removed otherwise.

    Args:
        path: the folder; must be empty if it exists. Its parents are made.

    Raises:
        DiskError: it can't be written.
        FileExistsError: `path` has been made meanwhile, with something in it.
    """
    temporary = temporary_path(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        move_into_place(temporary, path)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
        if (cause := _of_the_disk(error, temporary / path.name)) is None:
            raise
        raise cannot_write(path, cause) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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


def _of_the_disk(error: Exception, temporary: Path) -> OSError | None:
    """Return the operating system's error behind one of a library; None if the disk is not to blame.

    PyTorch, safetensors and OpenVINO have errors of their own for a full disk, which do not say so.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if (found := trial_write(temporary)) is not None:
        return found
    earlier = error.__context__
    while earlier is not None and not (isinstance(earlier, OSError) and earlier.errno in DISK_ERRORS):
        earlier = earlier.__context__
    return earlier or (error if isinstance(error, OSError) else None)


def _is_about(error: OSError, places: set[Path]) -> bool:
    """Return False for an error that names other files only, such as one that the block reads."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | os.PathLike)]
    return not names or any(Path(name) in places for name in names)
