"""Bytes and operations of each stage of a model, counted from its structure.

Counted are the bytes that any implementation with one kernel per convolution has to move: tensors between convolutions
are written once and read once, and read again where a sum over the whole batch or image must be known first. Pointwise
operations are assumed to be fused into their neighbours. `PASSES` holds the counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from effnet.models.config import ModelConfig
from effnet.models.profile import LayerSize, layer_sizes

UPDATE = "update"
WEIGHT_BYTES = 4
# Read: weight, gradient, the optimizer's two averages, the EMA; written: all of them but the gradient.
UPDATE_PASSES = 9
# Forward once; backward once for the input's gradient and once for the weights'.
TRAINING_OPERATIONS = 3


@dataclass(frozen=True)
class Passes:
    """Number of times that each tensor of a block is read or written.

    Attributes:
        input: the block's input: the projection before it, not yet normalised, or the last sum.
        expanded: output of the expansion's convolution.
        filtered: output of the depthwise convolution.
        squeezed: further passes over the same with squeeze-and-excitation.
        projected: output of the projection.
        shortcut: further passes over the same with a shortcut.
    """

    input: int
    expanded: int
    filtered: int
    squeezed: int
    projected: int
    shortcut: int


PASSES: dict[str, Passes] = {
    # BatchNorm is folded into the weights; the depthwise convolution computes the means to squeeze as it writes.
    "inference": Passes(input=1, expanded=2, filtered=2, squeezed=0, projected=1, shortcut=1),
    # Each convolution computes its output's statistics as it writes. Squeezing needs those of the whole depthwise
    # output, so it reads that again; the shortcut reads the projection and the input, and writes the sum.
    "forward": Passes(input=1, expanded=2, filtered=2, squeezed=1, projected=1, shortcut=3),
    # Input: read for the expansion's weight gradient; its gradient is written.
    # Projected: value and gradient are read for BatchNorm's sums, and again for the convolution.
    # Filtered: read for the projection's weight gradient; its gradient is written; the depthwise step reads both.
    # Squeezed: both are read again for BatchNorm's sums, after the gradients of the gates are known.
    # Expanded: read by the depthwise convolution; its gradient is written; the expansion reads both.
    "backward": Passes(input=2, expanded=4, filtered=4, squeezed=2, projected=4, shortcut=1),
}


@dataclass(frozen=True)
class Work:
    """Bytes moved, and operations (multiplications and additions)."""

    moved: float
    operations: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.moved + other.moved, self.operations + other.operations)


def stage_names(config: ModelConfig) -> tuple[str, ...]:
    """Return the stages of a model by the names of their modules, in the order in which they run."""
    layers = (f"layers.{index}" for index in range(len(config.stages())))
    return ("stem", *layers, "features", "classifier")


def count_work(config: ModelConfig, batch_size: int, element_bytes: int, training: bool) -> dict[str, Work]:
    """Count the work of each stage, and in training that of the weights' update.

    Args:
        config: model, including its image size.
        batch_size: images in a batch.
        element_bytes: bytes of an element of the tensors between layers.
        training: True for a training step (forward, backward, update), False for inference.

    Returns:
        Work by stage.
    """
    layers = layer_sizes(config)
    phases = ("forward", "backward") if training else ("inference",)
    work = {}
    for stage in stage_names(config):
        inside = {name: size for name, size in layers.items() if name.startswith(f"{stage}.")}
        elements = sum(_stage_elements(stage, inside, phase) for phase in phases)
        images = sum(_image_bytes(stage, inside) for _ in phases)
        weights = sum(size.weights for size in inside.values())
        weight_bytes = weights * WEIGHT_BYTES * (TRAINING_OPERATIONS if training else 1)
        repeats = (TRAINING_OPERATIONS - (stage == "stem")) if training else 1  # images need no gradient
        operations = 2 * sum(size.macs for size in inside.values()) * repeats
        work[stage] = Work(
            batch_size * (elements * element_bytes + images) + weight_bytes, batch_size * operations
        )
    if training:
        weights = sum(size.weights for size in layers.values())
        work[UPDATE] = Work(weights * WEIGHT_BYTES * UPDATE_PASSES, 0)
    return work


def _image_bytes(stage: str, layers: Mapping[str, LayerSize]) -> int:
    """Return the bytes of an image, which is read as bytes and normalised on the way."""
    return layers["stem.conv"].inputs if stage == "stem" else 0


def _stage_elements(stage: str, layers: Mapping[str, LayerSize], phase: str) -> int:
    """Return the elements that a stage moves in one phase for one image, not counting the image."""
    if stage == "stem":
        # Written once; backward, value and gradient are read for BatchNorm and the weights.
        return layers["stem.conv"].outputs * {"inference": 1, "forward": 1, "backward": 2}[phase]
    if stage == "features":
        size = layers["features.conv"]
        # Inference writes the means alone. Training writes the output and reads it for them; backward reads twice.
        outputs = {"inference": 0, "forward": 2, "backward": 2}[phase]
        return size.inputs * (2 if phase == "backward" else 1) + size.outputs * outputs
    if stage == "classifier":
        size = layers["classifier.fc"]
        return (size.inputs + size.outputs) * (2 if phase == "backward" else 1)
    blocks = dict.fromkeys(name.split(".")[2] for name in layers)
    return sum(_block_elements(f"{stage}.{block}", layers, PASSES[phase]) for block in blocks)


def _block_elements(block: str, layers: Mapping[str, LayerSize], passes: Passes) -> int:
    projection = layers[f"{block}.proj.conv"]
    expand, depthwise = layers.get(f"{block}.expand.conv"), layers.get(f"{block}.depsep.conv")
    inputs, projected = (expand or depthwise or projection).inputs, projection.outputs
    elements = inputs * passes.input + projected * passes.projected
    if expand is not None:
        elements += expand.outputs * passes.expanded
    if depthwise is not None:  # absent in fused blocks
        elements += depthwise.outputs * passes.filtered
        if f"{block}.se.squeeze" in layers:
            elements += depthwise.outputs * passes.squeezed
    # Where the shape stays there is a shortcut.
    if inputs == projected:
        elements += projected * passes.shortcut
    return elements
