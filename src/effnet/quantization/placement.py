"""The places of quantizers by engine: one table, with the reason of each row.

An engine computes an operator in integers only if the tensors around it are quantized in the way that it fuses, and
each further quantized tensor costs accuracy for nothing. The rows that all engines share are NVIDIA's.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import get_args

from effnet.models.efficientnet import EfficientNet
from effnet.quantization.layers import quantizers_of, weighted_layers
from effnet.quantization.targets import TARGETS
from effnet.recipe.choices import TargetName
from effnet.runtime.errors import UserError

# Where a sigmoid is within 0.0004 of its end, a tenth of a step of 1/255, and SiLU of its negative within 0.003 of 0.
SATURATED = 8.0

# Largest integers of weights in 8 and in 7 bits.
_MOST, MOST_REDUCED = 127, 63


@dataclass(frozen=True)
class Row:
    """A place of quantizers.

    Attributes:
        place: end of the quantizers' names; the first row that matches a name holds.
        targets: engines that want it.
        reason: why it is there.
        limits: values beyond which what follows is constant to less than its own rounding; a range need not hold them.
        is_clipped: a method of calibration may leave out the farthest values.
    """

    place: str
    targets: tuple[TargetName, ...]
    reason: str
    limits: tuple[float, float] = (-math.inf, math.inf)
    is_clipped: bool = True

    def within_limits(self, low: float, high: float) -> tuple[float, float]:
        """Return the part of a range that matters."""
        return max(low, self.limits[0]), min(high, self.limits[1])


_ALL: tuple[TargetName, ...] = get_args(TargetName)

PLACEMENT: tuple[Row, ...] = (
    Row(
        ".act._input_quantizer",
        ("onnxruntime",),
        "a convolution is fused only if its output is quantized; without, it runs in float between conversions. "
        "The others fuse SiLU in float into the convolution's end, where a further rounding is a loss",
        limits=(-SATURATED, math.inf),
    ),
    Row(
        ".act.gate_quantizer",
        ("onnxruntime",),
        "SiLU is computed as QLinearSigmoid and QLinearMul, of which both factors have to be quantized",
    ),
    Row(
        ".se.gate_quantizer",
        ("onnxruntime",),
        "squeeze-and-excitation's second convolution is fused like the others",
        limits=(-SATURATED, SATURATED),
    ),
    Row(
        ".branch_quantizer",
        ("onnxruntime", "litert", "executorch"),
        "additions in integers (QLinearAdd, LiteRT's, XNNPACK's) want both of their inputs quantized",
    ),
    Row(
        ".logits_quantizer",
        ("litert", "executorch"),
        "a linear layer in integers wants its output quantized; the others leave it in float",
        is_clipped=False,  # the farthest are the answers
    ),
    Row(
        ".residual_quantizer",
        _ALL,
        "the shortcut of a sum in integers; without, the block's input is read a second time in float",
    ),
    Row(
        ".pooling._input_quantizer",
        _ALL,
        "the pooling reads the largest tensor of a block; in INT8 that is a quarter of the memory traffic",
    ),
    Row(".mul_b_quantizer", _ALL, "the features of squeeze-and-excitation's product, read in INT8"),
    Row(".mul_a_quantizer", _ALL, "its gates: both factors are quantized or the product stays in float"),
    Row("._input_quantizer", _ALL, "convolutions and linear layers multiply integers with integers"),
    Row(
        "._weight_quantizer",
        _ALL,
        "a range for each output channel: those of depthwise kernels differ by orders of magnitude. Symmetric, so that "
        "no engine has to sum up inputs to correct for a zero point",
    ),
)


def row_of(name: str) -> Row:
    """Return the row of the quantizer called `name`."""
    return next(row for row in PLACEMENT if f".{name}".endswith(row.place))


def place_quantizers(
    model: EfficientNet, target: TargetName, keep_float: Sequence[str] = (), *, reduce_range: bool = True
) -> None:
    """Switch each quantizer of a model on or off as an engine wants it. Ranges that are known are kept.

    Args:
        model: a quantized model.
        target: the engine.
        keep_float: layers that are not to be quantized: names, beginnings of names up to a dot, or patterns.
        reduce_range: weights in 7 bits if the engine runs on x86 CPUs.

    Raises:
        UserError: the model is not quantized, or there is no such layer.
    """
    if not model.config.quantized:
        raise UserError(f"--arch {model.config.name} has no quantizers; use --arch {model.config.twin}")
    float_layers = _chosen_layers(list(weighted_layers(model)), keep_float)
    engine = TARGETS[target]
    for name, quantizer in quantizers_of(model).items():
        is_on = target in row_of(name).targets and name.rpartition(".")[0] not in float_layers
        quantizer.switch(is_on, asymmetric=engine.asymmetric)
        quantizer.most = MOST_REDUCED if engine.on_x86 and reduce_range else _MOST


def _chosen_layers(layers: Sequence[str], patterns: Sequence[str]) -> set[str]:
    chosen: set[str] = set()
    for pattern in patterns:
        found = [name for name in layers if fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")]
        if not found:
            near = difflib.get_close_matches(pattern, layers, n=1, cutoff=0.0)[0]
            raise UserError(
                f"--keep-float {pattern}: no such layer; did you mean {near}? --sensitivity lists all"
            )
        chosen.update(found)
    return chosen
