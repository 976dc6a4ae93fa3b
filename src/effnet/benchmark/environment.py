"""Machine, versions and commit that a result was measured with."""

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from effnet.runtime.machine import cores, version_of
from effnet.runtime.memory import peak_memory
from effnet.runtime.processor import cpu_model

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "triton",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "ai-edge-litert",
    "tensorrt",
    "numpy",
    "pillow",
    "simplejpeg",
    "nvidia-dali-cuda130",
)


def environment() -> dict[str, Any]:
    """Return machine, versions, commit and command of this process, as plain values for JSON."""
    on_gpu = torch.cuda.is_available()
    return {
        "command": " ".join(sys.argv),
        "commit": _commit(),
        "cpu": cpu_model(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "peak_memory": peak_memory(),
        "gpu": torch.cuda.get_device_name() if on_gpu else None,
        "cuda": torch.version.cuda if on_gpu else None,
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := version_of(name))},
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
