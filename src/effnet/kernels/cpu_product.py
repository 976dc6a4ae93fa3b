"""Matrix products in float32 on a CPU, by the faster of the libraries that PyTorch comes with."""

import functools
import platform

import torch
from torch import Tensor

from effnet.runtime.processor import is_intel

_X86 = ("x86_64", "amd64")


@functools.cache
def by_onednn() -> bool:
    """Return whether products are computed by oneDNN, which PyTorch uses for convolutions.

    PyTorch's own choice is MKL, which reaches half of oneDNN's rate on x86 CPUs that are not Intel's (machine F
    of docs/performance.md: 0.20 and 0.45 TFLOP/s).
    """
    return (
        platform.machine().lower() in _X86
        and not is_intel()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return a b^T, (M, N), for (M, K) and (N, K) of any strides, without a gradient."""
    if a.dtype == torch.float32 and by_onednn():
        out: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
        return out
    return a @ b.t()
