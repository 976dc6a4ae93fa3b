"""What distinguishes one EfficientNet from another: the stage table, compound scaling, a row per model.

Sources: EfficientNet, arXiv 1905.11946, table 1 and section 3.3 (stages, compound scaling); the published
training settings for dropout and stochastic depth; EfficientNet-Lite's model card for the Lite rows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

SqueezeWidth = Literal["input", "expanded", "none"]
Padding = Literal["symmetric", "same"]
Activation = Literal["silu", "relu", "relu6", "hardswish"]

STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
CHANNEL_DIVISOR = 8


@dataclass(frozen=True)
class StageConfig:
    """One stage: `depth` blocks of the same kernel, of which the first changes stride and channels."""

    kernel_size: int
    stride: int
    expansion: int
    in_channels: int
    out_channels: int
    depth: int


# The stages of B0. Every other model is this table, scaled.
BASE_STAGES = (
    StageConfig(kernel_size=3, stride=1, expansion=1, in_channels=32, out_channels=16, depth=1),
    StageConfig(kernel_size=3, stride=2, expansion=6, in_channels=16, out_channels=24, depth=2),
    StageConfig(kernel_size=5, stride=2, expansion=6, in_channels=24, out_channels=40, depth=2),
    StageConfig(kernel_size=3, stride=2, expansion=6, in_channels=40, out_channels=80, depth=3),
    StageConfig(kernel_size=5, stride=1, expansion=6, in_channels=80, out_channels=112, depth=3),
    StageConfig(kernel_size=5, stride=2, expansion=6, in_channels=112, out_channels=192, depth=4),
    StageConfig(kernel_size=3, stride=1, expansion=6, in_channels=192, out_channels=320, depth=1),
)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that defines one model; a variant is another value of this, never another class.

    Attributes:
        name: registered name, such as ``efficientnet-b0``.
        width: compound-scaling factor of the channels.
        depth: compound-scaling factor of the number of blocks in a stage.
        image_size: side in pixels of the square images the model was designed for.
        dropout: probability of dropping a feature before the classifier, in [0, 1).
        survival_prob: probability in (0, 1] that the last block's residual branch is kept in training
            (stochastic depth, arXiv 1603.09382); it falls linearly from 1 at the first block.
        squeeze_width: what the squeeze-and-excitation bottleneck is a quarter of: the block's ``input``
            channels (published EfficientNet), its ``expanded`` channels (WideSE), or ``none`` for no module.
        activation: a key of `layers.ACTIVATIONS`.
        fixed_stem_and_head: keep stem and head channels and the depth of the first and last stage unscaled (Lite).
        padding: ``symmetric`` (PyTorch's) or ``same`` (TensorFlow's "SAME", which pads right and bottom first).
        quantized: whether it is a quantized twin: the network of the float model, in which
            `effnet.quantization.model` then replaces layers.
        twin: name of the quantized model with the same network, or of the float one if this is quantized.
        is_large: whether it is trained with the published settings of B4 rather than those of B0.
        num_classes: number of logits.
        bn_momentum: weight of the new batch in BatchNorm's running statistics.
        bn_epsilon: added to BatchNorm's variance.
        conv_init: fan of the He initialisation of convolutions, ``fan_in`` or ``fan_out``.
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

    @property
    def stem_channels(self) -> int:
        """Channels that the stem gives."""
        return STEM_CHANNELS if self.fixed_stem_and_head else round_channels(STEM_CHANNELS, self.width)

    @property
    def head_channels(self) -> int:
        """Channels of the features before the classifier."""
        return HEAD_CHANNELS if self.fixed_stem_and_head else round_channels(HEAD_CHANNELS, self.width)

    def stages(self) -> tuple[StageConfig, ...]:
        """`BASE_STAGES` after compound scaling."""
        scaled = []
        in_channels = self.stem_channels
        last = len(BASE_STAGES) - 1
        for index, stage in enumerate(BASE_STAGES):
            keep_depth = self.fixed_stem_and_head and index in (0, last)
            out_channels = round_channels(stage.out_channels, self.width)
            scaled.append(
                replace(
                    stage,
                    in_channels=in_channels,
                    out_channels=out_channels,
                    depth=stage.depth if keep_depth else math.ceil(stage.depth * self.depth),
                )
            )
            in_channels = out_channels
        return tuple(scaled)


def round_channels(channels: int, factor: float, divisor: int = CHANNEL_DIVISOR) -> int:
    """Scale `channels` by `factor` and round to a multiple of `divisor`, never down by more than 10 %."""
    scaled = channels * factor
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


# width, depth, image size, dropout: arXiv 1905.11946 and its published training settings.
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

# NVIDIA publishes settings for B0 and B4, of which B4's have stochastic depth. Any other model has those of the nearer
# one below it; these have B4's.
_LARGE = ("b4", "b5", "b6", "b7")
_LARGE_SURVIVAL_PROB = 0.8


def _family() -> dict[str, ModelConfig]:
    rows = [
        *_rows("", _SCALING),
        *_rows("widese-", _SCALING, squeeze_width="expanded"),
        *_rows(
            "",
            _LITE_SCALING,
            squeeze_width="none",
            activation="relu6",
            fixed_stem_and_head=True,
            padding="same",
        ),
    ]
    return {row.name: row for row in (*rows, *map(_quantized, rows))}


def _rows(
    kind: str, scalings: dict[str, tuple[float, float, int, float]], **fields: Any
) -> Iterator[ModelConfig]:
    for member, scaling in scalings.items():
        yield ModelConfig(
            f"efficientnet-{kind}{member}",
            *scaling,
            twin=f"efficientnet-quant-{kind}{member}",
            is_large=member in _LARGE,
            survival_prob=_LARGE_SURVIVAL_PROB if member in _LARGE else 1.0,
            **fields,
        )


def _quantized(row: ModelConfig) -> ModelConfig:
    return replace(row, name=row.twin, twin=row.name, quantized=True)


MODEL_CONFIGS: dict[str, ModelConfig] = _family()
