"""The layers of a quantized model: the float ones, with quantizers in them.

Entries of the state dict are those of NVIDIA's quantized models. A quantizer has a place wherever some engine needs
one; `effnet.quantization.placement` decides which are on. In a new model those are on that NVIDIA's models have.
"""

from typing import Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet.kernels.cpu_convolution import DenseConv2d, DepthwiseConv2d, of_either, on_cpu
from effnet.models.layers import Classifier, Conv2d, FusedMBConv, MBConv, ResidualBlock, SqueezeExcitation
from effnet.models.replace import with_state_of
from effnet.quantization.quantizer import Quantizer
from effnet.quantization.rounding import rounded_silu


class _Weighted(nn.Module):
    """Common part of convolutions and linear layers: quantizers of input and weight."""

    weight: Tensor
    _input_quantizer: Quantizer
    _weight_quantizer: Quantizer

    def add_quantizers(self) -> None:
        """Make the quantizers, after the weights, whose entries come first."""
        self._input_quantizer = Quantizer()
        out = self.weight.shape[0]
        self._weight_quantizer = Quantizer((out, *(1,) * (self.weight.ndim - 1)))


_W = TypeVar("_W", bound=_Weighted)


def _with_quantizers(cls: type[_W], layer: nn.Module) -> _W:
    made = with_state_of(cls, layer)
    made.add_quantizers()
    return made


class QuantConv2d(_Weighted, Conv2d):
    """Convolution of a quantized input with quantized weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x`; shapes as in `Conv2d`."""
        return self.convolved(self._input_quantizer(x), self._weight_quantizer(self.weight))

    @classmethod
    def of(cls, conv: Conv2d) -> "QuantConv2d":
        """Return the quantized form of a convolution, whose weights it shares."""
        return _with_quantizers(cls, conv)


class QuantDepthwiseConv2d(QuantConv2d, DepthwiseConv2d):
    """The same with this project's weight gradient, for training on a CPU."""


class QuantDenseConv2d(QuantConv2d, DenseConv2d):
    """The same with single pixels as a matrix product, for training on a CPU."""


@on_cpu.register
def _(conv: QuantConv2d) -> nn.Module:
    return of_either(conv, QuantDepthwiseConv2d, QuantDenseConv2d)


class QuantLinear(_Weighted, nn.Linear):
    """Linear layer with quantized input and weights."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        return F.linear(self._input_quantizer(x), self._weight_quantizer(self.weight), self.bias)

    @classmethod
    def of(cls, linear: nn.Linear) -> "QuantLinear":
        """Return the quantized form of a linear layer, whose weights it shares."""
        return _with_quantizers(cls, linear)


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
        if self.gate_quantizer.only_observes:
            self.gate_quantizer.observe_through(torch.sigmoid, x)
        elif self.gate_quantizer.is_on:
            return x * self.gate_quantizer(x.sigmoid())
        return F.silu(x)


class QuantSqueezeExcitation(nn.Module):
    """Squeeze-and-excitation as 1x1 convolutions, with a pooling of its own; weights are those of `source`."""

    def __init__(self, source: SqueezeExcitation) -> None:
        super().__init__()
        self.pooling = QuantPooling()
        self.squeeze = QuantConv2d.of(_as_convolution(source.squeeze))
        self.act = quantized_activation(source.act)
        self.expand = QuantConv2d.of(_as_convolution(source.expand))
        self.gate_quantizer = Quantizer(is_on=False)
        self.mul_a_quantizer = Quantizer()
        self.mul_b_quantizer = Quantizer()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        features = self.mul_b_quantizer(x)
        grid = self.mul_b_quantizer.only_rounds_to
        # Both read the same tensor and have the same range from calibration, so it is rounded once.
        is_shared = grid is not None and grid == self.pooling._input_quantizer.only_rounds_to
        pooled = features.mean((2, 3), keepdim=True) if is_shared else self.pooling(x)
        gate = self.gate_quantizer(self.expand(self.act(self.squeeze(pooled)))).sigmoid()
        return features * self.mul_a_quantizer(gate)


class _QuantBlock(ResidualBlock):
    """Common part of the blocks: the sum of shortcut and branch has quantized inputs."""

    residual_quantizer: Quantizer
    branch_quantizer: Quantizer

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        y = self.branch(x)
        if not self.has_shortcut:
            return y
        return self.stochastic_depth(self.residual_quantizer(x), self.branch_quantizer(y))

    @classmethod
    def of(cls, block: ResidualBlock) -> Self:
        """Return the quantized form of a block, whose layers it shares."""
        made = with_state_of(cls, block)
        if made.has_shortcut:
            made.residual_quantizer = Quantizer()
            made.branch_quantizer = Quantizer(is_on=False)
        return made


class QuantMBConv(_QuantBlock, MBConv):
    """`MBConv` with a quantized sum."""


class QuantFusedMBConv(_QuantBlock, FusedMBConv):
    """`FusedMBConv` with a quantized sum."""


class QuantClassifier(nn.Module):
    """Global average pooling, dropout, fully connected layer; weights are those of `source`."""

    def __init__(self, source: Classifier) -> None:
        super().__init__()
        self.pooling = QuantPooling()
        self.dropout = source.dropout
        self.fc = QuantLinear.of(source.fc)
        self.logits_quantizer = Quantizer(is_on=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        return self.logits_quantizer(self.fc(self.dropout(self.pooling(x).flatten(1))))


def quantizers_of(model: nn.Module) -> dict[str, Quantizer]:
    """Return the quantizers of a model by name, those that are off included."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantizer)}


def weighted_layers(model: nn.Module) -> dict[str, QuantConv2d | QuantLinear]:
    """Return the convolutions and linear layers of a quantized model by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, QuantConv2d | QuantLinear)
    }


def quantized_activation(activation: nn.Module) -> nn.Module:
    """Return the quantized form of an activation: for all but SiLU the activation itself."""
    return QuantSiLU() if isinstance(activation, nn.SiLU) else activation


def _as_convolution(linear: nn.Linear) -> Conv2d:
    """Return a linear layer as a 1x1 convolution of the same weights."""
    with torch.device("meta"):
        conv = Conv2d(linear.in_features, linear.out_features, 1, 1, 1, "symmetric")
    conv.weight = nn.Parameter(linear.weight.detach()[:, :, None, None])
    conv.bias = linear.bias
    return conv
