"""Packages that exported models need. Each is imported here alone; the error says how to install it."""

from importlib import import_module
from typing import Any

from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command

# The extra to install, and the modules to import; a package without a row is installed under its own name.
_EXTRAS = {
    "onnx": ("onnx", ("onnxscript", "onnx")),
    "onnxruntime": ("onnx", ("onnxruntime",)),
    "onnxruntime_extensions": ("onnx-decode", ("onnxruntime_extensions",)),
    "openvino": ("openvino", ("openvino",)),
    "ai_edge_litert": ("litert", ("ai_edge_litert.interpreter",)),
}


def missing_package(*names: str) -> str | None:
    """Return what `load_package` says of the first of some packages that is not installed; None if all are."""
    for name in names:
        try:
            load_package(name)
        except UserError as error:
            return str(error)
    return None


def load_package(name: str) -> Any:
    """Import a package.

    Args:
        name: its name, such as ``onnx`` (with onnxscript, which PyTorch's exporter needs) or ``openvino``.

    Raises:
        UserError: it is not installed; the message says what to install.
    """
    extra, modules = _EXTRAS.get(name, (None, (name,)))
    try:
        return [import_module(module) for module in modules][-1]
    except ImportError:
        command = install_command(extra) if extra else f"pip install {name}"
        raise UserError(f"{name} is not installed: {command}") from None
