"""A quantized model in the form that engines read: BatchNorm folded, quantizers as PyTorch's own operators."""

import copy

import torch
from torch import Tensor, nn

from effnet.models.layers import ConvBNAct
from effnet.models.replace import replace_modules
from effnet.quantization.layers import QuantConv2d, weighted_layers
from effnet.quantization.quantizer import Quantizer
from effnet.quantization.rounding import HIGHEST, LOWEST


class _StandIn(nn.Module):
    """Module in a quantizer's place in an exported model, where layers take no shortcut around it."""

    only_rounds_to = None
    only_observes = False


class NoQuantizer(_StandIn, nn.Identity):
    """Stand-in for a quantizer that is off."""

    is_on = False


class ExportedQuantizer(_StandIn):
    """A quantizer as PyTorch's own operator, which exporters translate into QuantizeLinear and DequantizeLinear.

    Args:
        quantizer: on, with a known range.
        unsigned: store activations as uint8 with the zero point moved by 128, which is the same arithmetic.
    """

    is_on = True
    scales: Tensor
    zero_points: Tensor

    def __init__(self, quantizer: Quantizer, *, unsigned: bool) -> None:
        super().__init__()
        self.by_channel = bool(quantizer.shape)
        if self.by_channel:
            scales = quantizer.channel_scales().flatten()
            zero_points = torch.zeros_like(scales, dtype=torch.int32)
            self.limits = (-HIGHEST, HIGHEST)
        else:
            shift = -LOWEST if unsigned else 0
            scales = torch.tensor(quantizer.grid.scale)
            zero_points = torch.tensor(quantizer.grid.zero_point + shift, dtype=torch.int32)
            self.limits = (LOWEST + shift, HIGHEST + shift)
        self.register_buffer("scales", scales)
        self.register_buffer("zero_points", zero_points)

    def forward(self, x: Tensor) -> Tensor:
        """Round the input to the grid."""
        if self.by_channel:
            return torch.fake_quantize_per_channel_affine(x, self.scales, self.zero_points, 0, *self.limits)
        return torch.fake_quantize_per_tensor_affine(x, self.scales, self.zero_points, *self.limits)


def export_form(model: nn.Module, *, unsigned: bool) -> nn.Module:
    """Return a copy of a quantized model in eval mode with BatchNorm folded and PyTorch's operators as quantizers.

    Folding scales each output channel of a kernel and its quantizer alike, so the integers stay what they were in
    training, and the arithmetic too.

    Args:
        model: quantized, its ranges known; any device.
        unsigned: store activations as uint8, not int8.
    """
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        for layer in weighted_layers(model).values():
            # Rounded here, so that a later rounding in any arithmetic finds the same integers.
            layer.weight.copy_(layer._weight_quantizer(layer.weight))
        for module in model.modules():
            if isinstance(module, ConvBNAct):
                _fold(module)
    return replace_modules(model, lambda module: _exported(module, unsigned))


def _exported(module: nn.Module, unsigned: bool) -> nn.Module:
    if not isinstance(module, Quantizer):
        return module
    is_used = module.is_on and module.has_range
    return ExportedQuantizer(module, unsigned=unsigned) if is_used else NoQuantizer()


def _fold(module: ConvBNAct) -> None:
    norm, conv = module.bn, module.conv
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(conv, QuantConv2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    conv.bias = nn.Parameter(norm.bias - norm.running_mean * factor)
    by_channel = factor.view(-1, 1, 1, 1)
    conv.weight.mul_(by_channel)
    if conv._weight_quantizer.is_on:
        conv._weight_quantizer._amax.mul_(by_channel.abs())
    module.bn = nn.Identity()  # type: ignore[assignment]  # the same interface
