"""Installation of optional packages: the one place that knows where this package comes from."""

import functools
import json
import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

CHECKOUT = Path(__file__).resolve().parents[3]
"""root of the checkout, where this is one"""


def install_command(*extras: str) -> str:
    """Return the command that installs extras where this package is installed.

    From a checkout that is an editable installation, from a wheel the same wheel again. A package that came from an
    index, as it will once it is published, is asked for by its name.

    Args:
        extras: names in `[project.optional-dependencies]` of pyproject.toml.
    """
    source, editable = _source()
    wanted = f"{source}[{','.join(extras)}]"
    return f"{pip_command()} install {'-e ' if editable else ''}'{wanted}'"


@functools.cache
def _source() -> tuple[str, bool]:
    """Return what `pip install` takes, and True if it is a checkout."""
    if (CHECKOUT / "pyproject.toml").is_file() and (CHECKOUT / "src/effnet").is_dir():
        return _short(CHECKOUT), True
    try:
        text = distribution("effnet").read_text("direct_url.json")
        url = urlsplit(json.loads(text or "{}").get("url", ""))
    except (PackageNotFoundError, ValueError, AttributeError):
        return "effnet", False
    path = unquote(url.path)
    return (path, False) if url.scheme == "file" and path.endswith(".whl") else ("effnet", False)


def pip_command() -> str:
    """Return the `pip` of this Python, as it may be typed in the current folder."""
    found = shutil.which("pip", path=str(Path(sys.executable).parent))
    return "pip" if found is None or found == shutil.which("pip") else _short(Path(found))


def _short(path: Path) -> str:
    """Return a path relative to the current folder where it lies in it."""
    try:
        here = Path.cwd()
    except OSError:  # a folder that has been removed
        return str(path)
    return os.path.relpath(path, here) if path.is_relative_to(here) else str(path)
