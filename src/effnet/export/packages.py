"""The packages that exported models need. Each is imported here alone; the error names the extra that brings it."""

from importlib import import_module
from typing import Any

from effnet.runtime.errors import UserError

# What to install, and the packages among them that must be there although another imports them.
_EXTRAS = {
    "onnx": ("effnet[onnx]", ("onnxscript", "onnx")),
    "onnxruntime": ("effnet[onnx]", ("onnxruntime",)),
    "openvino": ("effnet[openvino]", ("openvino",)),
    "tensorrt": ("tensorrt", ("tensorrt",)),
}


def load_package(name: str) -> Any:
    """The module of that name.

    Args:
        name: ``onnx`` (with onnxscript, which PyTorch's exporter needs), ``onnxruntime``, ``openvino`` or ``tensorrt``.

    Raises:
        UserError: it is not installed; the message says what to install.
    """
    needed, modules = _EXTRAS[name]
    try:
        return [import_module(module) for module in modules][-1]
    except ImportError:
        raise UserError(f"{name} is not installed: pip install '{needed}'") from None
