"""This machine and the versions of what runs on it, as plain values."""

import os
import platform
from importlib import metadata
from typing import Any

from effnet.runtime.processor import cpu_model

_PACKAGES = ("effnet", "torch", "torchvision", "numpy", "pillow", "simplejpeg")


def machine() -> dict[str, Any]:
    """Return processor, cores that this process may use, system, Python, and versions of the packages of a training."""
    versions = {name: version for name in _PACKAGES if (version := version_of(name))}
    system = f"{platform.system()} {platform.release()}"
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "system": system,
        "python": platform.python_version(),
        **versions,
    }


def cores() -> int | None:
    """Return the cores that this process may use; None where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def version_of(package: str) -> str | None:
    """Return the version of an installed package; None for one that is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
