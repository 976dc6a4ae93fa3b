"""Checks of disks: the cache folder, the folder for temporary files, and the speed of the disk with the data."""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from effnet.doctor.finding import Finding
from effnet.runtime.cache import cache_dir
from effnet.runtime.disk import DiskError, check_writable, trial_write
from effnet.runtime.errors import one_line
from effnet.runtime.temporary import temporary_path

_LITTLE = 10**9
_WRITTEN = 64 << 20
_SECONDS = 1.0
_LISTED = 5000  # files of a data set that are found before some of them are drawn
_READ = 500


def check_cache() -> Iterator[Finding]:
    """Report whether the cache folder can be written, and its space."""
    folder = cache_dir()
    facts = {"folder": str(folder)}
    where = "set EFFNET_HOME to a folder that can be written"
    try:
        check_writable(folder / "trial", make_folder=True)
    except DiskError as error:
        text = f"{one_line(error)}; downloaded weights and compiled kernels have no place"
        yield Finding("cache", "broken", text, where, facts)
        return
    yield _with_space("cache", folder, f"{folder} can be written", where)


def check_temporary() -> Iterator[Finding]:
    """Report whether there is a folder for temporary files."""
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        text = "no folder for temporary files can be written: compilers and loader workers need one"
        yield Finding("temporary files", "broken", text, "set TMPDIR to a folder that can be written")
        return
    yield _with_space("temporary files", folder, str(folder), "set TMPDIR to a folder on another disk")


def _with_space(name: str, folder: Path, text: str, elsewhere: str) -> Finding:
    free = shutil.disk_usage(folder).free
    facts = {"folder": str(folder), "free": free}
    text = f"{text}, {free / 1e9:,.1f} GB free"
    if free < _LITTLE:
        return Finding(name, "warning", text, f"free some space on its disk, or {elsewhere}", facts)
    return Finding(name, "ok", text, facts=facts)


def check_disk(folder: Path | None, decoded: float | None) -> Iterator[Finding]:
    """Report the speed of the disk with the data.

    Args:
        folder: the data, of which files are read; None to write and read a file in the current folder.
        decoded: images that the cores decode in a second; None where that is not known.

    """
    if folder is None:
        yield _trial(Path())
        return
    files = list(islice(_files(folder), _LISTED))
    random.Random(0).shuffle(files)
    count, size, seconds = _read(files[:_READ])
    if not count:
        text = f"{folder}: no file in it can be read"
        yield Finding("disk", "warning", text, "pass a folder with files of the data")
        return
    rate, speed = count / seconds, size / seconds / 1e6
    facts = {"folder": str(folder), "files": count, "files_per_s": rate, "MB_per_s": speed}
    text = f"{folder}: reads {rate:,.0f} files/s, {speed:,.0f} MB/s"
    if decoded is not None and rate < decoded and count > 1:
        yield Finding(
            "disk",
            "warning",
            f"{text}, one after the other; the cores decode {decoded:,.0f} images/s",
            "give more --workers, which read side by side; copy the data to a local disk; or store them in a few large "
            "files with effnet prepare pack",
            facts,
        )
    else:
        yield Finding("disk", "ok", text, facts=facts)


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        yield from (Path(root, name) for name in names)


def _read(files: list[Path]) -> tuple[int, int, float]:
    """Return files and bytes that were read in the seconds that it took; from the disk where the system allows it."""
    count = size = 0
    start = time.perf_counter()
    for file in files:
        try:
            size += _read_whole(file)
        except OSError:
            continue
        count += 1
        if time.perf_counter() - start > _SECONDS:
            break
    return count, size, max(time.perf_counter() - start, 1e-9)


def _read_whole(file: Path) -> int:
    with file.open("rb") as opened:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return sum(map(len, iter(lambda: opened.read(1 << 20), b"")))


def _trial(folder: Path) -> Finding:
    """Write and read a file."""
    place = folder.resolve()
    if (refusal := trial_write(folder / "trial")) is not None:
        text = f"{place} can't be written ({refusal.strerror}); the speed of its disk is not measured"
        return Finding("disk", "ok", text, facts={"folder": str(place)})
    path = temporary_path(folder / "trial")
    block = random.Random(0).randbytes(1 << 20)
    try:
        start, written = time.perf_counter(), 0
        with path.open("wb") as file:
            while written < _WRITTEN and time.perf_counter() - start < _SECONDS:
                written += file.write(block)
            file.flush()
            os.fsync(file.fileno())
        writing = written / (time.perf_counter() - start) / 1e6
        _, size, seconds = _read([path])
    finally:
        path.unlink(missing_ok=True)
    reading = size / seconds / 1e6
    facts = {"folder": str(place), "write_MB_per_s": writing, "read_MB_per_s": reading}
    text = (
        f"{place}: writes {writing:,.0f} MB/s, reads {reading:,.0f} MB/s; effnet doctor DIR reads your data"
    )
    return Finding("disk", "ok", text, facts=facts)
