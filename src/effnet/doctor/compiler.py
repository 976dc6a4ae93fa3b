"""Check of the C++ compiler, which makes our kernels for CPUs and what torch.compile generates."""

import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from effnet.doctor.finding import Finding
from effnet.runtime.cpp import build, find_compiler
from effnet.runtime.errors import one_line

_KERNEL = """#include <omp.h>
#include <vector>
extern "C" int effnet_trial() {
    std::vector<int> of(8);
#pragma omp parallel for
    for (int i = 0; i < 8; i++) of[i] = omp_get_num_threads();
    return of[0];
}
"""
_WITHOUT = "training and quantization on CPUs are slower, --compile and --engine torch-compiled fail"
# The package with a compiler, by the command that installs it.
_PACKAGES = {
    "apt-get": "apt-get install g++",
    "dnf": "dnf install gcc-c++",
    "yum": "yum install gcc-c++",
    "apk": "apk add g++",
    "pacman": "pacman -S gcc",
    "zypper": "zypper install gcc-c++",
    "conda": "conda install gxx",
    "brew": "brew install gcc",
}
_HEADERS = {"apt-get": "apt-get install python3-dev", "dnf": "dnf install python3-devel"}


def check_compiler() -> Iterator[Finding]:
    """Report whether a compiler is there and compiles a kernel with threads, and whether Python's headers are there."""
    try:
        compiler = find_compiler()
    except OSError:
        text = f"no C++ compiler (g++, c++, or the variable CXX): {_WITHOUT}"
        yield Finding("compiler", "warning", text, f"install one: {_install(_PACKAGES)}")
        return
    facts = {"compiler": compiler}
    if (trouble := _trouble(compiler)) is not None:
        text = f"{compiler} does not compile ({trouble}): {_WITHOUT}"
        remedy = (
            f"install a whole one with OpenMP: {_install(_PACKAGES)}; or name another in the variable CXX"
        )
        yield Finding("compiler", "warning", text, remedy, facts)
        return
    yield Finding("compiler", "ok", f"{compiler} compiles kernels", facts=facts)
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        text = f"Python's headers are missing ({header}): --compile and --engine torch-compiled fail"
        yield Finding("Python's headers", "warning", text, f"install them: {_install(_HEADERS)}")


def _install(commands: dict[str, str]) -> str:
    """Return the command of the package manager that is here."""
    for manager, command in commands.items():
        if shutil.which(manager):
            return command
    return next(iter(commands.values())) + ", or what your system has in its place"


def _trouble(compiler: str) -> str | None:
    """Return why a compiler does not compile a kernel; None if it does."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "trial.cpp")
        source.write_text(_KERNEL, encoding="utf-8")
        try:
            build(compiler, source, Path(folder, "trial.so"))
        except subprocess.CalledProcessError as error:
            said = str(error.stderr).strip().splitlines()
            telling = [line for line in said if "error" in line] or said or ["it says nothing"]
            return one_line(telling[0], 150)
        except (OSError, subprocess.SubprocessError) as error:
            return one_line(error, 150)
    return None
