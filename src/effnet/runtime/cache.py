"""The folder for files that can be downloaded or built again."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder of downloads and compiled kernels.

    Returns:
        `EFFNET_HOME` if that is set, else `effnet` in `XDG_CACHE_HOME` or `~/.cache`; it need not exist.
    """
    if home := os.environ.get("EFFNET_HOME"):
        return Path(home).expanduser()
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches).expanduser() / "effnet"
    return Path.home() / ".cache" / "effnet"
