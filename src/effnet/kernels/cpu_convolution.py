"""Convolutions for training on a CPU that are faster than the library's."""

import functools

import torch.nn.functional as F
from torch import Tensor, nn

from effnet.kernels import cpu_depthwise
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


class DenseConv2d(Conv2d):
    """Convolution that trains single pixels as a matrix product, whose gradient is faster."""

    def convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        """See `Conv2d.convolved`."""
        if self.training and x.shape[2:] == weight.shape[2:] == (1, 1):
            return F.linear(x.flatten(1), weight.flatten(1), self.bias)[:, :, None, None]
        return super().convolved(x, weight)


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
