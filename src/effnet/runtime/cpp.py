"""C++ for the CPU, compiled on the machine that runs it.

It is C++ without PyTorch's headers, so the machine's compiler makes each file in seconds, once. Its OpenMP calls find
PyTorch's threads, because it is not linked with a library of its own. Without a compiler everything works, with what
Python's packages offer.
"""

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from effnet.runtime.cache import cache_dir
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_path

_LOG = logging.getLogger("effnet")
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-std=c++17", "-Wno-psabi", "-fno-math-errno")


@functools.cache
def load_kernels(source: Path, *flags: str) -> ctypes.CDLL | None:
    """Load the functions of a C++ file, which is compiled the first time; None where that can't be done.

    Args:
        source: the file.
        flags: for the compiler, in addition to those of all files.
    """
    try:
        return ctypes.CDLL(str(_built(source, flags)))
    except (OSError, UserError, subprocess.SubprocessError) as error:
        reason = str(getattr(error, "stderr", None) or error).strip().splitlines()[0]
        _LOG.info("%s is not used, slower code takes its place: %s", source.stem, reason)
        return None


def _built(source: Path, flags: Sequence[str]) -> Path:
    compiler = find_compiler()
    key = hashlib.sha256(
        b"\n".join([source.read_bytes(), compiler.encode(), *map(str.encode, flags), *_processor()])
    )
    path = cache_dir() / "kernels" / f"{source.stem}-{key.hexdigest()[:16]}.so"
    if not path.exists():
        build(compiler, source, path, flags)
    return path


def find_compiler() -> str:
    """Return the C++ compiler: that of the variable CXX, else g++ or c++.

    Raises:
        OSError: there is none.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise OSError("there is no C++ compiler")
    return compiler


def build(compiler: str, source: Path, path: Path, flags: Sequence[str] = ()) -> None:
    """Compile a C++ file to a library; see `load_kernels`.

    Raises:
        OSError: the compiler can't be started.
        subprocess.SubprocessError: it fails; `stderr` says why.
        DiskError: the library can't be written.
    """
    with atomic_path(path, make_folder=True) as whole, tempfile.TemporaryDirectory() as scratch:
        parts = f"{scratch}/kernel.o"
        # Linked apart from compiling, without -fopenmp: its calls are left to the library that PyTorch has loaded.
        for command in (
            [compiler, *_FLAGS, *flags, "-c", str(source), "-o", parts],
            [compiler, "-shared", parts, "-o", str(whole)],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


def _processor() -> list[bytes]:
    """Return the processor that the code is compiled for: different machines may share a home directory."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return []
    return sorted({line for line in lines if line.startswith((b"flags", b"model name", b"Features"))})
