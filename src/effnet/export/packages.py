"""Packages that exported models need. Each is imported here alone; the error says how to install it."""

from importlib import import_module
from typing import Any

from effnet.runtime.errors import UserError

# The extra to install, and the modules to import; a package without a row is installed under its own name.
_EXTRAS = {
    "onnx": ("effnet[onnx]", ("onnxscript", "onnx")),
    "onnxruntime": ("effnet[onnx]", ("onnxruntime",)),
    "openvino": ("effnet[openvino]", ("openvino",)),
}


def load_package(name: str) -> Any:
    """Import a package.

    Args:
        name: its name, such as ``onnx`` (with onnxscript, which PyTorch's exporter needs) or ``openvino``.

    Raises:
        UserError: it is not installed; the message says what to install.
    """
    needed, modules = _EXTRAS.get(name, (name, (name,)))
    try:
        return [import_module(module) for module in modules][-1]
    except ImportError:
        raise UserError(f"{name} is not installed: pip install '{needed}'") from None
