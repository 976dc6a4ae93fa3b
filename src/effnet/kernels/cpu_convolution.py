"""Convolutions for training on a CPU that are faster than the library's."""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from effnet.kernels import cpu_depthwise
from effnet.kernels.cpu_product import by_onednn, product
from effnet.models.layers import Conv2d
from effnet.models.replace import with_state_of


class DepthwiseConv2d(Conv2d):
    """Depthwise convolution that trains with the weight gradient of `effnet.kernels.cpu_depthwise` where that pays."""

    def convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        """See `Conv2d.convolved`."""
        x = self.padded(x)
        if self.training and cpu_depthwise.pays(x.shape[1], weight.shape[-1], *x.shape[2:]):
            return cpu_depthwise.depthwise(x, weight, self.stride[0], int(self.padding[0]))
        return self._conv_forward(x, weight, self.bias)


# Pixels of an image up to which MKL's product is faster than oneDNN's convolution of them.
_SMALL_IMAGE = 256
# Pixels up to which oneDNN's product is faster than its convolution for the weights' gradient.
_SMALL_GRADIENT = 16


class DenseConv2d(Conv2d):
    """Convolution that trains kernels of one pixel as matrix products where those are faster."""

    def convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        """See `Conv2d.convolved`."""
        is_pointwise = weight.shape[2:] == (1, 1) and self.stride == (1, 1) and self.groups == 1
        if self.training and is_pointwise and self.bias is None and _product_pays(x):
            out: Tensor = _Product.apply(x, weight)
            return out
        return super().convolved(x, weight)


def _product_pays(x: Tensor) -> bool:
    if by_onednn():
        # The compiler would take MKL.
        return not torch.compiler.is_compiling()
    return x.shape[2] * x.shape[3] <= _SMALL_IMAGE


class _Product(torch.autograd.Function):
    """Convolution with a kernel of one pixel: of (N, in, H, W) and (out, in, 1, 1), channels-last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _image(product(_pixels(x), weight.flatten(1)), x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _image(product(_pixels(grad), weight.flatten(1).t()), x)
        if ctx.needs_input_grad[1]:
            # DDP wants the strides of the weight itself, also in its dimensions of one.
            grad_weight = _weight_gradient(x, grad, weight).as_strided(weight.shape, weight.stride())
        return grad_x, grad_weight


def _weight_gradient(x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """The gradient of (out, in, 1, 1), contiguous, from the input and the output's gradient."""
    if not by_onednn():
        return _pixels(grad).t() @ _pixels(x)
    if x.shape[2] * x.shape[3] > _SMALL_GRADIENT:
        arguments = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False])
        return torch.ops.aten.convolution_backward(grad, x, weight, None, *arguments)[1].contiguous()
    return product(_pixels(grad).t(), _pixels(x).t())


def _pixels(x: Tensor) -> Tensor:
    """The pixels of a batch, (N * H * W, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _image(pixels: Tensor, like: Tensor) -> Tensor:
    """Pixels as a batch of the size of `like`, channels-last."""
    images, _, height, width = like.shape
    return pixels.view(images, height, width, -1).permute(0, 3, 1, 2)


@functools.singledispatch
def on_cpu(module: nn.Module) -> nn.Module:
    """Return what is to stand in a module's place when a model trains on a CPU in float32 and channels-last.

    For most that is the module itself.

    Packages whose own layers derive from `Conv2d` register what takes their place.
    """
    return module


@on_cpu.register
def _(conv: Conv2d) -> nn.Module:
    return of_either(conv, DepthwiseConv2d, DenseConv2d)


def of_either(conv: Conv2d, depthwise: type[Conv2d], dense: type[Conv2d]) -> Conv2d:
    """Return a convolution of the class for its kind with the same state; the same one where no kernel can be built."""
    if conv.groups == 1:
        return with_state_of(dense, conv)
    return with_state_of(depthwise, conv) if cpu_depthwise.is_available() else conv
