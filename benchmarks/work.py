"""Bytes and operations of each stage of a model, counted from its structure.

A byte counts where no implementation with one kernel for each convolution gets round it: the tensors between
convolutions are written once and read once, and read again where a sum over the whole batch or image has to be known
first. Everything pointwise is taken to be fused into its neighbours. `PASSES` says what that comes to.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from effnet.models.config import ModelConfig
from effnet.models.profile import LayerSize, layer_sizes

STAGES = ("stem", *(f"layers.{index}" for index in range(7)), "features", "classifier")
UPDATE = "update"
WEIGHT_BYTES = 4
# A weight, its gradient, the optimizer's two averages and EMA's are read; all but the gradient are written.
UPDATE_PASSES = 9
# Forward once; backward once for the input's gradient and once for the weights'.
TRAINING_OPERATIONS = 3


@dataclass(frozen=True)
class Passes:
    """How often each tensor of a block is read or written.

    Attributes:
        input: the block's input, which is the projection before it, not yet normalised, or the last sum.
        expanded: what the expansion's convolution gives.
        filtered: what the depthwise convolution gives.
        squeezed: of the same, in addition, where there is squeeze-and-excitation.
        projected: what the projection gives.
        shortcut: of the same, in addition, where there is a shortcut.
    """

    input: int
    expanded: int
    filtered: int
    squeezed: int
    projected: int
    shortcut: int


PASSES: dict[str, Passes] = {
    # BatchNorm is part of the weights; squeeze-and-excitation's means come with the convolution that is squeezed.
    "inference": Passes(input=1, expanded=2, filtered=2, squeezed=0, projected=1, shortcut=1),
    # Statistics come with each convolution; squeezing has to wait for the depthwise convolution's, and a shortcut for
    # the projection's: it reads the projection and the input, and writes the sum.
    "forward": Passes(input=1, expanded=2, filtered=2, squeezed=1, projected=1, shortcut=3),
    # The input is read for the expansion's weights, its gradient written. Projected: its BatchNorm's sums need gradient
    # and value, then so does its convolution. Filtered: read for the projection's weights, its gradient written, and
    # both read by the depthwise convolution; with squeezing, both once more for BatchNorm's sums after the gates'
    # gradients are known. Expanded: read by the depthwise convolution, its gradient written, both read by the
    # expansion.
    "backward": Passes(input=2, expanded=4, filtered=4, squeezed=2, projected=4, shortcut=1),
}


@dataclass(frozen=True)
class Work:
    """Bytes and operations."""

    moved: float
    operations: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.moved + other.moved, self.operations + other.operations)


def count_work(config: ModelConfig, batch_size: int, number_bytes: int, training: bool) -> dict[str, Work]:
    """Work of each stage, and in training of the weights' update.

    Args:
        config: the model; its image size counts.
        batch_size: images.
        number_bytes: bytes of a number in a tensor between layers.
        training: a training step (forward, backward, update), not inference.
    """
    layers = layer_sizes(config)
    phases = ("forward", "backward") if training else ("inference",)
    work = {}
    for stage in STAGES:
        inside = {name: size for name, size in layers.items() if name.startswith(f"{stage}.")}
        numbers = sum(_stage_numbers(stage, inside, phase) for phase in phases)
        images = sum(_image_bytes(stage, inside) for _ in phases)
        weights = sum(size.weights for size in inside.values())
        weight_bytes = weights * WEIGHT_BYTES * (TRAINING_OPERATIONS if training else 1)
        repeats = (TRAINING_OPERATIONS - (stage == "stem")) if training else 1  # images need no gradient
        operations = 2 * sum(size.macs for size in inside.values()) * repeats
        work[stage] = Work(
            batch_size * (numbers * number_bytes + images) + weight_bytes, batch_size * operations
        )
    if training:
        weights = sum(size.weights for size in layers.values())
        work[UPDATE] = Work(weights * WEIGHT_BYTES * UPDATE_PASSES, 0)
    return work


def _image_bytes(stage: str, layers: Mapping[str, LayerSize]) -> int:
    """Images come as bytes, and are normalised as they are read."""
    return layers["stem.conv"].inputs if stage == "stem" else 0


def _stage_numbers(stage: str, layers: Mapping[str, LayerSize], phase: str) -> int:
    """Numbers that a stage moves in one phase for one image, the image itself aside."""
    if stage == "stem":
        # Written; backward, value and gradient are read for BatchNorm and the weights.
        return layers["stem.conv"].outputs * {"inference": 1, "forward": 1, "backward": 2}[phase]
    if stage == "features":
        size = layers["features.conv"]
        # Inference keeps the means alone. Training writes and reads it for them; backward, twice for BatchNorm.
        outputs = {"inference": 0, "forward": 2, "backward": 2}[phase]
        return size.inputs * (2 if phase == "backward" else 1) + size.outputs * outputs
    if stage == "classifier":
        size = layers["classifier.fc"]
        return (size.inputs + size.outputs) * (2 if phase == "backward" else 1)
    blocks = dict.fromkeys(name.split(".")[2] for name in layers)
    return sum(_block_numbers(f"{stage}.{block}", layers, PASSES[phase]) for block in blocks)


def _block_numbers(block: str, layers: Mapping[str, LayerSize], passes: Passes) -> int:
    expand, depthwise = layers.get(f"{block}.expand.conv"), layers[f"{block}.depsep.conv"]
    projected = layers[f"{block}.proj.conv"].outputs
    inputs = (expand or depthwise).inputs
    numbers = inputs * passes.input + depthwise.outputs * passes.filtered + projected * passes.projected
    if expand is not None:
        numbers += expand.outputs * passes.expanded
    if f"{block}.se.squeeze" in layers:
        numbers += depthwise.outputs * passes.squeezed
    # Only a stage's first block changes the shape, and the tables hold no first block that does not.
    if inputs == projected:
        numbers += projected * passes.shortcut
    return numbers
