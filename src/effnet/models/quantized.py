"""The layers of a quantized model: the float ones, with quantizers in them.

Entries of the state dict are those of the published quantized files. A quantizer has a place wherever some engine
needs one; which of them are on is `effnet.quantization.placement`'s business. A new model has those on that the
published files have.
"""

import copy
from collections.abc import Mapping
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet.models.efficientnet import EfficientNet
from effnet.models.layers import Classifier, Conv2d, ConvBNAct, MBConv, SqueezeExcitation
from effnet.models.quantizer import ExportedQuantizer, NoQuantizer, Quantizer
from effnet.models.rounding import rounded_silu


class _Weighted(nn.Module):
    """What convolutions and linear layers share: quantizers of input and weight."""

    weight: Tensor
    _input_quantizer: Quantizer
    _weight_quantizer: Quantizer

    def add_quantizers(self) -> None:
        """Make the quantizers, after the weights, whose entries come first."""
        self._input_quantizer = Quantizer()
        out = self.weight.shape[0]
        self._weight_quantizer = Quantizer((out, *(1,) * (self.weight.ndim - 1)))


_W = TypeVar("_W", bound=_Weighted)


class QuantConv2d(_Weighted, Conv2d):
    """Convolution of a quantized input with quantized weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x`."""
        return self.convolved(self._input_quantizer(x), self._weight_quantizer(self.weight))


class QuantLinear(_Weighted, nn.Linear):
    """Linear layer with quantized input and weights."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        return F.linear(self._input_quantizer(x), self._weight_quantizer(self.weight), self.bias)


class QuantPooling(nn.Module):
    """Mean over height and width of a quantized input: (N, C, H, W) -> (N, C, 1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self._input_quantizer = Quantizer()

    def forward(self, x: Tensor) -> Tensor:
        """Average."""
        return self._input_quantizer(x).mean((2, 3), keepdim=True)


class QuantSiLU(nn.Module):
    """SiLU, x * sigmoid(x), whose input and gate are quantized for engines that compute it from two operators."""

    def __init__(self) -> None:
        super().__init__()
        self._input_quantizer = Quantizer(is_on=False)
        self.gate_quantizer = Quantizer(is_on=False)

    def forward(self, x: Tensor) -> Tensor:
        """Activate."""
        grid, gate_grid = self._input_quantizer.only_rounds_to, self.gate_quantizer.only_rounds_to
        if grid is not None and gate_grid is not None:
            return rounded_silu(x, grid, gate_grid)
        x = self._input_quantizer(x)
        if self.gate_quantizer.only_collects:
            self.gate_quantizer.collect_through(torch.sigmoid, x)
        elif self.gate_quantizer.is_on:
            return x * self.gate_quantizer(x.sigmoid())
        return F.silu(x)


class QuantSqueezeExcitation(nn.Module):
    """Squeeze-and-excitation as 1x1 convolutions, with a pooling of its own; weights are those of `source`."""

    def __init__(self, source: SqueezeExcitation) -> None:
        super().__init__()
        self.pooling = QuantPooling()
        self.squeeze = _convolution(source.squeeze)
        self.act = _activation(source.act)
        self.expand = _convolution(source.expand)
        self.gate_quantizer = Quantizer(is_on=False)
        self.mul_a_quantizer = Quantizer()
        self.mul_b_quantizer = Quantizer()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        features = self.mul_b_quantizer(x)
        grid = self.mul_b_quantizer.only_rounds_to
        # Both see the same tensor, so calibration gives them the same range, and one rounding serves both.
        is_shared = grid is not None and grid == self.pooling._input_quantizer.only_rounds_to
        pooled = features.mean((2, 3), keepdim=True) if is_shared else self.pooling(x)
        gate = self.gate_quantizer(self.expand(self.act(self.squeeze(pooled)))).sigmoid()
        return features * self.mul_a_quantizer(gate)


class QuantMBConv(MBConv):
    """Block whose sum has quantized parts."""

    residual_quantizer: Quantizer
    branch_quantizer: Quantizer

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        y = self.branch(x)
        if not self.has_shortcut:
            return y
        return self.stochastic_depth(self.residual_quantizer(x), self.branch_quantizer(y))


class QuantClassifier(nn.Module):
    """Global average pooling, dropout, fully connected layer; weights are those of `source`."""

    def __init__(self, source: Classifier) -> None:
        super().__init__()
        self.pooling = QuantPooling()
        self.dropout = source.dropout
        self.fc = source.fc
        _convert(self.fc, QuantLinear)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        return self.fc(self.dropout(self.pooling(x).flatten(1)))


def quantize_layers(model: EfficientNet) -> None:
    """Give the layers of a float model their quantizers, in place. The weights stay.

    From then on, loading a state dict with quantizers' entries switches off those that have none in it; a float
    model's leaves them as they are.
    """
    for module in list(model.modules()):
        if isinstance(module, ConvBNAct):
            _convert(module.conv, QuantConv2d)
            module.act = _activation(module.act)
        elif isinstance(module, MBConv):
            if module.se is not None:
                module.se = QuantSqueezeExcitation(module.se)  # type: ignore[assignment]  # the same interface
            module.__class__ = QuantMBConv
            if module.has_shortcut:
                module.residual_quantizer = Quantizer()
                module.branch_quantizer = Quantizer(is_on=False)
    model.classifier = QuantClassifier(model.classifier)  # type: ignore[assignment]  # the same interface
    model.register_load_state_dict_pre_hook(_switch_off_absent)


def _switch_off_absent(model: nn.Module, state_dict: Mapping[str, Tensor], prefix: str, *_: object) -> None:
    if any(key.endswith("._amax") for key in state_dict):
        for name, quantizer in quantizers_of(model).items():
            if f"{prefix}{name}._amax" not in state_dict:
                quantizer.switch(False)


def quantizers_of(model: nn.Module) -> dict[str, Quantizer]:
    """The quantizers of a model by name, those that are off included."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantizer)}


def weighted_layers(model: nn.Module) -> dict[str, QuantConv2d | QuantLinear]:
    """Convolutions and linear layers of a quantized model by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, QuantConv2d | QuantLinear)
    }


def export_form(model: nn.Module, *, unsigned: bool) -> nn.Module:
    """A copy of a quantized model in eval mode as engines want it: BatchNorm folded, quantizers as PyTorch's operators.

    Folding scales each output channel of a kernel and its quantizer alike, so the integers stay what they were in
    training, and the arithmetic too.

    Args:
        model: quantized, its ranges known; any device.
        unsigned: store activations as uint8, not int8.
    """
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        for layer in weighted_layers(model).values():
            # On the grid already: a later rounding, in whatever arithmetic, then finds the same integers.
            layer.weight.copy_(layer._weight_quantizer(layer.weight))
        for module in model.modules():
            if isinstance(module, ConvBNAct):
                _fold(module)
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, Quantizer):
                    setattr(module, name, _exported(child, unsigned))
    return model


def _exported(quantizer: Quantizer, unsigned: bool) -> nn.Module:
    is_used = quantizer.is_on and quantizer.has_range
    return ExportedQuantizer(quantizer, unsigned=unsigned) if is_used else NoQuantizer()


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


def _activation(activation: nn.Module) -> nn.Module:
    return QuantSiLU() if isinstance(activation, nn.SiLU) else activation


def _convolution(linear: nn.Linear) -> QuantConv2d:
    """A linear layer as a 1x1 convolution."""
    with torch.device("meta"):
        conv = Conv2d(linear.in_features, linear.out_features, 1, 1, 1, "symmetric")
    conv.weight = nn.Parameter(linear.weight.detach()[:, :, None, None])
    conv.bias = linear.bias
    return _convert(conv, QuantConv2d)


def _convert(layer: nn.Module, to: type[_W]) -> _W:
    """Turn a layer into its quantized kind in place, so that its weights keep their place and order."""
    layer.__class__ = to
    assert isinstance(layer, to)
    layer.add_quantizers()
    return layer
