"""The folder for files that can be downloaded or built again."""

import logging
import os
from pathlib import Path

from effnet.runtime.disk import DiskError, check_writable

_LOG = logging.getLogger("effnet")


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


def writable_cache(name: str) -> Path | None:
    """Return a folder in `cache_dir`, made if it is missing; None, with a warning, if it can't be written."""
    folder = cache_dir() / name
    try:
        check_writable(folder / "trial", make_folder=True)
    except DiskError as error:
        _LOG.warning("%s; going on without this cache", error)
        return None
    return folder
