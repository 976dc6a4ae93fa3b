"""A kernel for CPUs where PyTorch's library is far from what the machine can do.

That is the weight gradient of depthwise convolutions 5 wide in channels-last, for which oneDNN has no vectorised
code. Milliseconds on two cores with AVX-512, batch 16 at the sizes that B0 has for images of 224 px:

    channels  map      library  this kernel
         240  28 x 28     7.96         1.27
         672  14 x 14     5.19         0.95
        1152   7 x 7      2.98         0.61

The kernel is C++ without PyTorch's headers, so the machine's compiler makes it in two seconds, once. Its OpenMP
calls find PyTorch's threads, for it is not linked with a library of its own. Without a compiler everything works as
before.
"""

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from effnet.models.cache import cache_dir

_LOG = logging.getLogger("effnet")
_SOURCE = Path(__file__).with_name("cpu_depthwise.cpp")
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-std=c++17", "-Wno-psabi")
_PARTS = 8  # of a batch, whose sums are added in order; enough for the threads to share any layer
_LANES = 8
_SMALL_MAP = 9  # pixels, up to which the library is slow for kernels 3 wide as well


def pays(channels: int, kernel: int, height: int, width: int) -> bool:
    """Whether the kernel takes such a convolution and has been measured to be faster than the library."""
    return channels % _LANES == 0 and (kernel == 5 or (kernel == 3 and height * width <= _SMALL_MAP))


def depthwise(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Depthwise convolution whose weight gradient is this module's; `is_available` must have said yes.

    Args:
        x: float32 (N, C, H, W) on the CPU.
        weight: float32 (C, 1, k, k), k 3 or 5.
        stride, padding: the same for rows and columns.
    """
    out: Tensor = _Depthwise.apply(x, weight, stride, padding)
    return out


@functools.cache
def is_available() -> bool:
    """Whether the kernel can be used on this machine; builds it the first time."""
    try:
        _library()
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        _LOG.info(
            "depthwise convolutions train with the library's kernels: %s", str(reason).strip().splitlines()[0]
        )
        return False
    return True


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.ops.aten.convolution_backward(
                *(grad, x, weight, None),
                *([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], x.shape[1]),
                [True, False, False],
            )[0]
        if ctx.needs_input_grad[1]:
            grad_weight = torch.ops.effnet.depthwise_weight_gradient(
                x, grad, weight.shape[-1], stride, padding
            )
            # The same memory; DDP wants the stride that channels-last weights have in their dimension of one.
            grad_weight = grad_weight.as_strided(weight.shape, weight.stride())
        return grad_x, grad_weight, None, None


torch.library.define(
    "effnet::depthwise_weight_gradient",
    "(Tensor x, Tensor grad, int kernel, int stride, int padding) -> Tensor",
)


@torch.library.impl("effnet::depthwise_weight_gradient", "CPU")
def _weight_gradient(x: Tensor, grad: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    images, channels, height, width = x.shape
    parts = min(images, _PARTS)
    partial = x.new_empty(parts * kernel * kernel * channels)
    out = x.new_empty(channels, 1, kernel, kernel)
    pointers = (tensor.data_ptr() for tensor in (x, grad, partial, out))
    sizes = (parts, images, height, width, channels, *grad.shape[2:], kernel, stride, padding)
    _library()(*pointers, *sizes)
    return out


@torch.library.register_fake("effnet::depthwise_weight_gradient")
def _(x: Tensor, grad: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    return x.new_empty(x.shape[1], 1, kernel, kernel)


@functools.cache
def _library() -> Any:
    """The compiled function."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise OSError("there is no C++ compiler")
    key = hashlib.sha256(b"\n".join([_SOURCE.read_bytes(), compiler.encode(), *_processor()]))
    path = cache_dir() / "kernels" / f"{_SOURCE.stem}-{key.hexdigest()[:16]}.so"
    if not path.exists():
        _build(compiler, path)
    function = ctypes.CDLL(str(path)).effnet_depthwise_weight_gradient
    function.restype = None
    function.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int] * 10
    return function


def _build(compiler: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        parts, whole = f"{scratch}/kernel.o", f"{scratch}/kernel.so"
        # Linked apart from compiling, without -fopenmp: its calls are left to the library that PyTorch has loaded.
        for command in (
            [compiler, *_FLAGS, "-c", str(_SOURCE), "-o", parts],
            [compiler, "-shared", parts, "-o", whole],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        os.replace(whole, path)  # whole or not at all: other processes may be building it too


def _processor() -> list[bytes]:
    """What the code is made for: a home directory may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return []
    return sorted({line for line in lines if line.startswith((b"flags", b"model name", b"Features"))})
