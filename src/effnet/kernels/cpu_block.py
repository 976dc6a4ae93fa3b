"""Blocks that train on a CPU with the passes of `effnet.kernels.cpu_passes`.

Only the convolutions' outputs are kept for the backward pass; activations are computed again there.
"""

import torch
from torch import Tensor, nn

from effnet.kernels import cpu_passes
from effnet.kernels.cpu_autograd import Filter, filtered, normalised
from effnet.kernels.cpu_convolution import DepthwiseConv2d
from effnet.kernels.geometry import Geometry, top_left
from effnet.kernels.statistics import channel_elements, has_statistics, learn_statistics
from effnet.models.layers import Conv2d, ConvBNAct, MBConv, SqueezeExcitation
from effnet.models.replace import with_state_of


class CpuConvBNAct(ConvBNAct):
    """Convolution whose BatchNorm and activation are two passes forward and two backward."""

    def forward(self, x: Tensor) -> Tensor:
        """See `ConvBNAct.forward`."""
        y = self.conv(x)
        if not (self.bn.training and _has_form(y)) or _is_watched(self.bn, self.act):
            return self.act(self.bn(y))
        out, mean, variance = normalised(y, self.bn, self.act)
        learn_statistics(self.bn, mean, variance, channel_elements(y))
        return out


class CpuMBConv(MBConv):
    """Block whose part from the expansion's output to the projection's input is four passes forward and three back."""

    def branch(self, x: Tensor) -> Tensor:
        """See `MBConv.branch`."""
        before, after = None if self.expand is None else self.expand.bn, self.depsep.bn
        trains = after.training and (before is None or before.training)
        if not (trains and _has_form(x)) or _is_watched(self.expand, self.depsep, self.se):
            return super().branch(x)
        y = x if self.expand is None else self.expand.conv(x)
        conv, size = self.depsep.conv, y.shape[2:]
        form = Filter(
            Geometry(conv.kernel_size[0], conv.stride[0], *top_left(conv, *size), *size),
            self.depsep.act,
            eps_before=0.0 if before is None else before.eps,
            eps_after=after.eps,
        )
        out, at_after, at_before = filtered(y, form, before, conv.weight, after, _parameters(self.se))
        learn_statistics(after, *at_after, channel_elements(out))
        if before is not None and at_before is not None:
            learn_statistics(before, *at_before, channel_elements(y))
        return self.proj(out)


def with_passes(module: nn.Module) -> nn.Module:
    """Return what is to stand in a module's place when a model trains on a CPU in float32 and channels-last.

    Args:
        module: any; for most, and where `cpu_passes.is_available()` is false, that is the module itself.
    """
    cls = _replacement(module)
    return with_state_of(cls, module) if cls is not None and cpu_passes.is_available() else module


def _replacement(module: nn.Module) -> type[nn.Module] | None:
    if type(module) is ConvBNAct:
        return CpuConvBNAct if _is_known(module) else None
    if type(module) is not MBConv:
        return None
    parts = [module.depsep, *([] if module.expand is None else [module.expand])]
    conv, activations = module.depsep.conv, {type(part.act) for part in parts}
    fits = (
        type(conv) in (Conv2d, DepthwiseConv2d)
        and cpu_passes.supports(conv.in_channels, conv.kernel_size[0], conv.stride[0])
        and all(_is_known(part) for part in parts)
        and len(activations) == 1
        and (module.se is None or _is_plain(module.se, activations.pop()))
    )
    return CpuMBConv if fits else None


def _is_known(part: ConvBNAct) -> bool:
    """Return whether the passes know the BatchNorm and the activation of a convolution."""
    return (
        has_statistics(part.bn)
        and cpu_passes.supports(part.bn.num_features)
        and cpu_passes.activation_number(part.act) is not None
    )


def _is_plain(se: nn.Module, activation: type[nn.Module]) -> bool:
    return (
        type(se) is SqueezeExcitation
        and type(se.squeeze) is type(se.expand) is nn.Linear
        and type(se.act) is activation
    )


def _parameters(se: SqueezeExcitation | None) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    return None if se is None else (se.squeeze.weight, se.squeeze.bias, se.expand.weight, se.expand.bias)


def _is_watched(*parts: nn.Module | None) -> bool:
    """Return whether hooks wait for the calls of parts, which the passes do not make."""
    return any(
        module._forward_pre_hooks
        or module._forward_hooks
        or module._backward_pre_hooks
        or module._backward_hooks
        for part in parts
        if part is not None
        for module in part.modules()
    )


def _has_form(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
