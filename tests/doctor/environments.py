"""Python environments of their own in which something is broken."""

import os
import re
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.commands import REPOSITORY

PACKAGES = Path(sysconfig.get_path("purelib"))
# What the doctor asks of PyTorch, for environments in which something else is broken: the real one takes seconds.
QUICK_TORCH = """
from types import SimpleNamespace as Space
__version__ = "99.0"
ones = lambda *shape: None
nn = Space(functional=Space(conv2d=lambda images, kernel: Space(numpy=lambda: None)))
version = Space(cuda=None)
cuda = Space(is_available=lambda: False, get_arch_list=list, device_count=lambda: 0)
get_num_threads = lambda: 7
"""


def environment(
    folder: Path, *, without: Sequence[str] = (), stubs: Mapping[tuple[str, str], str] | None = None
) -> Path:
    """Make an environment with all packages of this one but some; return its Python.

    Args:
        folder: where to make it.
        without: names of packages, which are distributions and modules, that it lacks.
        stubs: source of a module by its name and the version that is told to be installed; they replace the package.
    """
    stubs = stubs or {}
    venv.create(folder, symlinks=True, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    left_out = [*without, *(name for name, _ in stubs)]
    for entry in PACKAGES.iterdir():
        name = re.split(r"-[\d.]+.*\.dist-info", entry.name)[0].removesuffix(".py")
        if name not in left_out and entry.suffix != ".pth" and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    for (name, version), source in stubs.items():
        (site / f"{name}.py").write_text(source)
        (site / f"{name}-{version}.dist-info").mkdir()
        (site / f"{name}-{version}.dist-info/METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    return folder / "bin/python"


def variables(**changes: str) -> dict[str, str]:
    """Return this process's variables with changes, and with this checkout as the place of effnet."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), **changes}
