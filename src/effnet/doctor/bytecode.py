"""The check of compiled packages, without which every start of a command takes about twice as long."""

import os
import sys
from collections.abc import Iterator
from importlib.util import cache_from_source, find_spec
from pathlib import Path

from effnet.doctor.finding import Finding


def check_bytecode(package: Path | None = None) -> Iterator[Finding]:
    """Report that Python has to compile its packages at each start and can't keep the result.

    Args:
        package: ``__init__.py`` of the package that is looked at; None for PyTorch's, which takes the longest.
    """
    if package is None:
        spec = find_spec("torch")
        if spec is None or spec.origin is None:
            return  # told with the packages
        package = Path(spec.origin)
    compiled = Path(cache_from_source(str(package)))
    if compiled.exists():
        return
    command = f"{sys.executable} -m compileall -q -j 0 {package.parent.parent}"
    if sys.dont_write_bytecode:
        why = "PYTHONDONTWRITEBYTECODE is set"
        remedy = f"unset it, or compile them once: {command}"
    elif not _writable(compiled.parent):
        why = f"{compiled.parent} can't be written"
        remedy = f"compile them once as their owner: {command}"
    else:
        return
    text = f"Python compiles its packages at every start, for some ten seconds, as {why}"
    yield Finding("bytecode", "warning", text, remedy)


def _writable(folder: Path) -> bool:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return os.access(existing, os.W_OK)
