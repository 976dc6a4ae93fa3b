"""Where files that can be had again are kept."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Folder of downloads and compiled kernels: `EFFNET_HOME`, or `effnet` in `XDG_CACHE_HOME` or `~/.cache`."""
    if home := os.environ.get("EFFNET_HOME"):
        return Path(home).expanduser()
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches).expanduser() / "effnet"
    return Path.home() / ".cache" / "effnet"
