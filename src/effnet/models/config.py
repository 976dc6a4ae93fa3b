"""Configurations: stage tables, compound scaling, and one row per model.

Sources: EfficientNet, arXiv 1905.11946, table 1 and section 3.3 (stages, compound scaling); NVIDIA's README for
dropout and stochastic depth; EfficientNet-Lite's model card for the Lite rows; EfficientNetV2, arXiv 2104.00298,
table 4 and section 5.1, and its published code for the V2 rows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

SqueezeWidth = Literal["input", "expanded", "none"]
Padding = Literal["symmetric", "same"]
Activation = Literal["silu", "relu", "relu6", "hardswish"]
BlockKind = Literal["mbconv", "fused"]

HEAD_CHANNELS = 1280
CHANNEL_DIVISOR = 8


@dataclass(frozen=True)
class StageConfig:
    """One stage: `depth` blocks of one kind, of which the first changes the resolution and the number of channels.

    Attributes:
        kernel_size: side of the depthwise kernels or, in fused blocks, of the dense ones.
        stride: of the first block; the others have 1.
        expansion: ratio of the channels inside a block to those of its input.
        in_channels: channels of the stage's input; the stem's output for the first stage.
        out_channels: channels of the stage's output.
        depth: number of blocks.
        kind: ``mbconv`` (`layers.MBConv`) or ``fused`` (`layers.FusedMBConv`).
    """

    kernel_size: int
    stride: int
    expansion: int
    in_channels: int
    out_channels: int
    depth: int
    kind: BlockKind = "mbconv"


# B0. All models but V2 are this table, scaled.
BASE_STAGES = (
    StageConfig(kernel_size=3, stride=1, expansion=1, in_channels=32, out_channels=16, depth=1),
    StageConfig(kernel_size=3, stride=2, expansion=6, in_channels=16, out_channels=24, depth=2),
    StageConfig(kernel_size=5, stride=2, expansion=6, in_channels=24, out_channels=40, depth=2),
    StageConfig(kernel_size=3, stride=2, expansion=6, in_channels=40, out_channels=80, depth=3),
    StageConfig(kernel_size=5, stride=1, expansion=6, in_channels=80, out_channels=112, depth=3),
    StageConfig(kernel_size=5, stride=2, expansion=6, in_channels=112, out_channels=192, depth=4),
    StageConfig(kernel_size=3, stride=1, expansion=6, in_channels=192, out_channels=320, depth=1),
)

# V2-B0, which V2-B1 to V2-B3 scale.
V2_BASE_STAGES = (
    StageConfig(kind="fused", kernel_size=3, stride=1, expansion=1, in_channels=32, out_channels=16, depth=1),
    StageConfig(kind="fused", kernel_size=3, stride=2, expansion=4, in_channels=16, out_channels=32, depth=2),
    StageConfig(kind="fused", kernel_size=3, stride=2, expansion=4, in_channels=32, out_channels=48, depth=2),
    StageConfig(kernel_size=3, stride=2, expansion=4, in_channels=48, out_channels=96, depth=3),
    StageConfig(kernel_size=3, stride=1, expansion=6, in_channels=96, out_channels=112, depth=5),
    StageConfig(kernel_size=3, stride=2, expansion=6, in_channels=112, out_channels=192, depth=8),
)

V2_S_STAGES = (
    StageConfig(kind="fused", kernel_size=3, stride=1, expansion=1, in_channels=24, out_channels=24, depth=2),
    StageConfig(kind="fused", kernel_size=3, stride=2, expansion=4, in_channels=24, out_channels=48, depth=4),
    StageConfig(kind="fused", kernel_size=3, stride=2, expansion=4, in_channels=48, out_channels=64, depth=4),
    StageConfig(kernel_size=3, stride=2, expansion=4, in_channels=64, out_channels=128, depth=6),
    StageConfig(kernel_size=3, stride=1, expansion=6, in_channels=128, out_channels=160, depth=9),
    StageConfig(kernel_size=3, stride=2, expansion=6, in_channels=160, out_channels=256, depth=15),
)

V2_M_STAGES = (
    StageConfig(kind="fused", kernel_size=3, stride=1, expansion=1, in_channels=24, out_channels=24, depth=3),
    StageConfig(kind="fused", kernel_size=3, stride=2, expansion=4, in_channels=24, out_channels=48, depth=5),
    StageConfig(kind="fused", kernel_size=3, stride=2, expansion=4, in_channels=48, out_channels=80, depth=5),
    StageConfig(kernel_size=3, stride=2, expansion=4, in_channels=80, out_channels=160, depth=7),
    StageConfig(kernel_size=3, stride=1, expansion=6, in_channels=160, out_channels=176, depth=14),
    StageConfig(kernel_size=3, stride=2, expansion=6, in_channels=176, out_channels=304, depth=18),
    StageConfig(kernel_size=3, stride=1, expansion=6, in_channels=304, out_channels=512, depth=5),
)

V2_L_STAGES = (
    StageConfig(kind="fused", kernel_size=3, stride=1, expansion=1, in_channels=32, out_channels=32, depth=4),
    StageConfig(kind="fused", kernel_size=3, stride=2, expansion=4, in_channels=32, out_channels=64, depth=7),
    StageConfig(kind="fused", kernel_size=3, stride=2, expansion=4, in_channels=64, out_channels=96, depth=7),
    StageConfig(kernel_size=3, stride=2, expansion=4, in_channels=96, out_channels=192, depth=10),
    StageConfig(kernel_size=3, stride=1, expansion=6, in_channels=192, out_channels=224, depth=19),
    StageConfig(kernel_size=3, stride=2, expansion=6, in_channels=224, out_channels=384, depth=25),
    StageConfig(kernel_size=3, stride=1, expansion=6, in_channels=384, out_channels=640, depth=7),
)


@dataclass(frozen=True)
class ModelConfig:
    """Full definition of one model; a variant is another value of this, never another class.

    Attributes:
        name: registered name, such as ``efficientnet-b0``.
        width: compound-scaling factor of the channels.
        depth: compound-scaling factor of the number of blocks in a stage.
        image_size: side in pixels of the square images that the model is trained on. V2 is evaluated on larger ones
            (S 384; M and L 480; B0 to B3 224, 240, 260, 300), which the metadata of published weights name.
        dropout: probability of dropping a feature before the classifier, in [0, 1).
        survival_prob: probability in (0, 1] that the last block's residual branch is kept in training
            (stochastic depth, arXiv 1603.09382); it falls linearly from 1 at the first block.
        squeeze_width: channels of which the squeeze-and-excitation bottleneck has a quarter: the block's ``input``
            (published EfficientNet), its ``expanded`` ones (WideSE), or ``none`` for no module.
        activation: a key of `layers.ACTIVATIONS`.
        fixed_stem_and_head: keep stem and head channels and the depth of the first and last stage unscaled (Lite).
        padding: ``symmetric`` (PyTorch's) or ``same`` (TensorFlow's "SAME", which pads right and bottom first).
        quantized: whether layers with quantizers are to replace those of the float model.
        twin: name of the quantized model with the same network, or of the float one if this is quantized.
        is_large: whether the training defaults are NVIDIA's settings for B4 rather than those for B0.
        num_classes: number of logits.
        bn_momentum: weight of the new batch in BatchNorm's running statistics.
        bn_epsilon: added to BatchNorm's variance.
        conv_init: fan of the He initialisation of convolutions, ``fan_in`` or ``fan_out``.
        base_stages: stages before scaling.
        rounding_floor: smallest fraction of the scaled channels that rounding to a multiple of 8 may leave.
    """

    name: str
    width: float
    depth: float
    image_size: int
    dropout: float
    survival_prob: float = 1.0
    squeeze_width: SqueezeWidth = "input"
    activation: Activation = "silu"
    fixed_stem_and_head: bool = False
    padding: Padding = "symmetric"
    quantized: bool = False
    twin: str = ""
    is_large: bool = False
    num_classes: int = 1000
    bn_momentum: float = 0.01
    bn_epsilon: float = 1e-3
    conv_init: Literal["fan_in", "fan_out"] = "fan_in"
    base_stages: tuple[StageConfig, ...] = BASE_STAGES
    rounding_floor: float = 0.9

    @property
    def stem_channels(self) -> int:
        """Channels of the stem's output."""
        channels = self.base_stages[0].in_channels
        return channels if self.fixed_stem_and_head else self._scaled(channels)

    @property
    def head_channels(self) -> int:
        """Channels of the features before the classifier."""
        return HEAD_CHANNELS if self.fixed_stem_and_head else self._scaled(HEAD_CHANNELS)

    def stages(self) -> tuple[StageConfig, ...]:
        """Return `base_stages` after compound scaling."""
        stages = []
        in_channels = self.stem_channels
        last = len(self.base_stages) - 1
        for index, stage in enumerate(self.base_stages):
            keeps_depth = self.fixed_stem_and_head and index in (0, last)
            depth = stage.depth if keeps_depth else math.ceil(stage.depth * self.depth)
            out_channels = self._scaled(stage.out_channels)
            stages.append(replace(stage, in_channels=in_channels, out_channels=out_channels, depth=depth))
            in_channels = out_channels
        return tuple(stages)

    def _scaled(self, channels: int) -> int:
        return round_channels(channels, self.width, self.rounding_floor)


def round_channels(channels: int, factor: float, floor: float = 0.9, divisor: int = CHANNEL_DIVISOR) -> int:
    """Scale a number of channels and round it to a multiple of `divisor`.

    Args:
        channels: number before scaling.
        factor: to scale by.
        floor: smallest fraction of the scaled number to return; below it, the next multiple is taken.
        divisor: of the result.
    """
    scaled = channels * factor
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < floor * scaled else rounded


# Width, depth, image size, dropout: arXiv 1905.11946 and its published training settings.
_SCALING = {
    "b0": (1.0, 1.0, 224, 0.2),
    "b1": (1.0, 1.1, 240, 0.2),
    "b2": (1.1, 1.2, 260, 0.3),
    "b3": (1.2, 1.4, 300, 0.3),
    "b4": (1.4, 1.8, 380, 0.4),
    "b5": (1.6, 2.2, 456, 0.4),
    "b6": (1.8, 2.6, 528, 0.5),
    "b7": (2.0, 3.1, 600, 0.5),
}

_LITE_SCALING = {
    "lite0": (1.0, 1.0, 224, 0.2),
    "lite1": (1.0, 1.1, 240, 0.2),
    "lite2": (1.1, 1.2, 260, 0.3),
    "lite3": (1.2, 1.4, 280, 0.3),
    "lite4": (1.4, 1.8, 300, 0.3),
}

_V2_SCALING = {
    "b0": (1.0, 1.0, 192, 0.2),
    "b1": (1.0, 1.1, 192, 0.2),
    "b2": (1.1, 1.2, 208, 0.3),
    "b3": (1.2, 1.4, 240, 0.3),
}

# NVIDIA's README has settings for B0 and for B4, which has stochastic depth. Any other model has those of the nearer
# one below it; these have B4's.
_LARGE = ("b4", "b5", "b6", "b7")
_LARGE_TRAINING: dict[str, Any] = {"is_large": True, "survival_prob": 0.8}

_LITE: dict[str, Any] = {
    "squeeze_width": "none",
    "activation": "relu6",
    "fixed_stem_and_head": True,
    "padding": "same",
}

# Settings that all V2 models are published with. The optimizer's defaults are NVIDIA's for B4 in S, M and L, and for B0
# in V2-B0 to V2-B3.
_V2: dict[str, Any] = {"survival_prob": 0.8, "bn_momentum": 0.1}
_V2_LARGE: dict[str, Any] = {**_V2, "is_large": True}


def _family() -> dict[str, ModelConfig]:
    rows = [
        *_rows("", _SCALING),
        *_rows("widese-", _SCALING, squeeze_width="expanded"),
        # NVIDIA's models with an activation that INT8 engines compute in a quarter of the time (docs/quantization.md).
        *_rows("hswish-", _SCALING, activation="hardswish"),
        *_rows("", _LITE_SCALING, **_LITE),
        *_rows("v2-", {"s": (1.0, 1.0, 300, 0.2)}, base_stages=V2_S_STAGES, **_V2_LARGE),
        *_rows("v2-", {"m": (1.0, 1.0, 384, 0.3)}, base_stages=V2_M_STAGES, **_V2_LARGE),
        *_rows("v2-", {"l": (1.0, 1.0, 384, 0.4)}, base_stages=V2_L_STAGES, **_V2_LARGE),
        *_rows("v2-", _V2_SCALING, base_stages=V2_BASE_STAGES, rounding_floor=0.0, **_V2),
    ]
    return {row.name: row for row in (*rows, *map(_quantized, rows))}


def _rows(
    kind: str, scalings: dict[str, tuple[float, float, int, float]], **fields: Any
) -> Iterator[ModelConfig]:
    for member, scaling in scalings.items():
        training = _LARGE_TRAINING if member in _LARGE else {}
        row = ModelConfig(f"efficientnet-{kind}{member}", *scaling, twin=f"efficientnet-quant-{kind}{member}")
        yield replace(row, **training, **fields)


def _quantized(row: ModelConfig) -> ModelConfig:
    return replace(row, name=row.twin, twin=row.name, quantized=True)


MODEL_CONFIGS: dict[str, ModelConfig] = _family()
