"""Triton, as far as it can be known without importing it or PyTorch's compiler."""

import functools
import importlib.util
import os

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def has_triton() -> bool:
    """Return whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None
