"""The wheel and the source distribution of this checkout, and fresh environments with the wheel."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import REPOSITORY

_BUILT_FROM = (
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "docs",
    "recipes",
    "src",
)
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.pyc")
PACKAGES = sysconfig.get_path("purelib")
"""folder of the packages beside these tests, which a fresh environment borrows in place of downloading gigabytes"""


@dataclass(frozen=True)
class Distributions:
    """Built files.

    Attributes:
        wheel: the wheel.
        source: the source distribution that it was built from.
    """

    wheel: Path
    source: Path


def environment() -> dict[str, str]:
    """Variables without those by which a command would import this checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(command: Sequence[str | Path], place: Path, **variables: str) -> str:
    """Run a command in a folder outside the checkout; return what it printed, or fail with it."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=place,
        env={**environment(), "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(folder: Path) -> Distributions:
    """Build from a copy, as stale files in a checkout's `build` would get into the wheel."""
    pytest.importorskip("build", reason="extra dev")
    copy = folder / "copy"
    copy.mkdir()
    for name in _BUILT_FROM:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, copy / name, symlinks=True, ignore=_LEFT_OUT)
        else:
            shutil.copy(source, copy / name)
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", copy], folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    (source,) = (folder / "dist").glob("*.tar.gz")
    return Distributions(wheel, source)


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment with the wheel alone; return its Python, which finds all other packages here."""
    uv = uv_command()
    run([uv, "venv", "--offline", "--python", sys.executable, folder / "venv"], folder)
    python = folder / "venv/bin/python"
    run([uv, "pip", "install", "--offline", "--no-deps", "--python", python, wheel], folder)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(f"{PACKAGES}\n")
    return python


def uv_command() -> str:
    """Path of `uv`, or the end of the test where it is not installed."""
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip("uv is not installed")
    return found


def required() -> list[str]:
    """Names of the required packages."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [re.split(r"[^\w-]", line, maxsplit=1)[0] for line in project["dependencies"]]
