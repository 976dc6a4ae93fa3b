"""Building blocks of EfficientNet, named as in NVIDIA's state dicts (`conv`, `bn`, `squeeze`, ...)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet.models.config import Activation, BlockKind, ModelConfig, Padding, StageConfig

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
}


class Conv2d(nn.Conv2d):
    """Convolution without bias, padded symmetrically or as TensorFlow's "SAME".

    "SAME" padding depends on the size of the input and puts the odd pixel on the right and at the bottom, so that with
    stride 2 it differs from symmetric padding where the size is even.

    Shapes: (N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        groups: int,
        padding: Padding,
    ) -> None:
        pads_itself = padding == "same" and stride > 1
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            # With stride 1 and an odd kernel, "SAME" padding is symmetric.
            padding=0 if pads_itself else (kernel_size - 1) // 2,
            groups=groups,
            bias=False,
        )
        self.pads_itself = pads_itself

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x`."""
        return self.convolved(x, self.weight)

    def convolved(self, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve `x` with `weight` instead of the layer's own; shapes as in `forward`."""
        return self._conv_forward(self.padded(x), weight, self.bias)

    def padded(self, x: Tensor) -> Tensor:
        """Pad `x` with the zeros that "SAME" padding asks for and the convolution itself does not add."""
        if not self.pads_itself:
            return x
        return F.pad(x, (*self.same_padding(x.shape[3]), *self.same_padding(x.shape[2])))

    def same_padding(self, size: int) -> tuple[int, int]:
        """Return the numbers of zeros before and after `size` pixels in TensorFlow's "SAME" padding."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


class ConvBNAct(nn.Module):
    """Convolution, BatchNorm and, unless `activate` is false, the model's activation."""

    def __init__(
        self,
        config: ModelConfig,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, kernel_size, stride, groups, config.padding)
        self.bn = nn.BatchNorm2d(out_channels, eps=config.bn_epsilon, momentum=config.bn_momentum)
        self.act: nn.Module = ACTIVATIONS[config.activation]() if activate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        return self.act(self.bn(self.conv(x)))


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate computed from all channels' means (arXiv 1709.01507).

    The two layers are linear, not 1x1 convolutions, as in NVIDIA's implementation.
    """

    def __init__(self, config: ModelConfig, channels: int, squeeze_channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, squeeze_channels)
        self.act = ACTIVATIONS[config.activation]()
        self.expand = nn.Linear(squeeze_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        gate = self.expand(self.act(self.squeeze(x.mean((2, 3)))))
        return x * gate.sigmoid()[:, :, None, None]


class StochasticDepth(nn.Module):
    """Add a residual branch to its shortcut; in training, drop a sample's branch with probability 1 - `survival_prob`.

    Branches that are kept are scaled by 1 / `survival_prob` (arXiv 1603.09382). Samples are dropped by multiplying with
    zero, so that the graph does not depend on the random choice.
    """

    def __init__(self, survival_prob: float) -> None:
        super().__init__()
        self.survival_prob = survival_prob

    def forward(self, shortcut: Tensor, residual: Tensor) -> Tensor:
        """(N, C, H, W) twice -> their sum, of the same shape."""
        if not self.training or self.survival_prob == 1.0:
            return shortcut + residual
        kept = torch.rand(residual.shape[0], 1, 1, 1, device=residual.device) < self.survival_prob
        return torch.addcmul(shortcut, residual, kept.to(residual.dtype), value=1 / self.survival_prob)

    def extra_repr(self) -> str:
        """Return the text that ``print(model)`` shows."""
        return f"survival_prob={self.survival_prob:g}"


class ResidualBlock(nn.Module):
    """Branch of convolutions with a shortcut where input and output have the same shape; base of the blocks.

    Args:
        stage: the stage that the block belongs to.
        is_first: whether it is the stage's first block, which changes resolution and channels.
        survival_prob: probability that the branch is kept in training.
    """

    def __init__(self, stage: StageConfig, is_first: bool, survival_prob: float) -> None:
        super().__init__()
        self.in_channels = stage.in_channels if is_first else stage.out_channels
        self.stride = stage.stride if is_first else 1
        self.has_shortcut = self.stride == 1 and self.in_channels == stage.out_channels
        self.stochastic_depth = StochasticDepth(survival_prob)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        y = self.branch(x)
        return self.stochastic_depth(x, y) if self.has_shortcut else y

    def branch(self, x: Tensor) -> Tensor:
        """Compute the block without its shortcut; shapes as in `forward`."""
        raise NotImplementedError


class MBConv(ResidualBlock):
    """Mobile inverted bottleneck: expansion, depthwise convolution, squeeze-and-excitation, projection, shortcut.

    `expand` is None where the expansion is 1, `se` in models without squeeze-and-excitation.
    """

    def __init__(self, config: ModelConfig, stage: StageConfig, is_first: bool, survival_prob: float) -> None:
        super().__init__(stage, is_first, survival_prob)
        expanded = self.in_channels * stage.expansion
        self.expand = ConvBNAct(config, self.in_channels, expanded) if stage.expansion > 1 else None
        self.depsep = ConvBNAct(config, expanded, expanded, stage.kernel_size, self.stride, groups=expanded)
        squeezed = squeeze_channels(config, self.in_channels, expanded)
        self.se = SqueezeExcitation(config, expanded, squeezed) if squeezed else None
        self.proj = ConvBNAct(config, expanded, stage.out_channels, activate=False)

    def branch(self, x: Tensor) -> Tensor:
        """Compute the block without its shortcut; shapes as in `forward`."""
        y = self.filtered(x if self.expand is None else self.expand.conv(x))
        if self.se is not None:
            y = self.se(y)
        return self.proj(y)

    def filtered(self, y: Tensor) -> Tensor:
        """Apply the depthwise convolution and the BatchNorms and activations around it.

        Args:
            y: output of the expansion's convolution, or the block's input where there is no expansion.
        """
        if self.expand is not None:
            y = self.expand.act(self.expand.bn(y))
        return self.depsep(y)


class FusedMBConv(ResidualBlock):
    """`MBConv` whose expansion and depthwise convolution are one dense convolution (arXiv 2104.00298, section 3.2).

    It has no squeeze-and-excitation. Where the expansion is 1, `expand` is None and the projection is the dense
    convolution, with the activation.
    """

    expand: ConvBNAct | None

    def __init__(self, config: ModelConfig, stage: StageConfig, is_first: bool, survival_prob: float) -> None:
        super().__init__(stage, is_first, survival_prob)
        kernel_size, out_channels = stage.kernel_size, stage.out_channels
        if stage.expansion > 1:
            expanded = self.in_channels * stage.expansion
            self.expand = ConvBNAct(config, self.in_channels, expanded, kernel_size, self.stride)
            self.proj = ConvBNAct(config, expanded, out_channels, activate=False)
        else:
            self.expand = None
            self.proj = ConvBNAct(config, self.in_channels, out_channels, kernel_size, self.stride)

    def branch(self, x: Tensor) -> Tensor:
        """Compute the block without its shortcut; shapes as in `forward`."""
        return self.proj(x if self.expand is None else self.expand(x))


BLOCKS: dict[BlockKind, type[MBConv | FusedMBConv]] = {"mbconv": MBConv, "fused": FusedMBConv}


def squeeze_channels(config: ModelConfig, in_channels: int, expanded_channels: int) -> int:
    """Return the channels of the squeeze-and-excitation bottleneck, 0 for a model without the module."""
    match config.squeeze_width:
        case "input":
            return max(1, in_channels // 4)
        case "expanded":
            return max(1, expanded_channels // 4)
        case "none":
            return 0


class Classifier(nn.Module):
    """Global average pooling, dropout, fully connected layer."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, num_classes)."""
        return self.fc(self.dropout(x.mean((2, 3))))
