"""The parts of DALI's graph from files to images, and the random numbers that they take."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from effnet.data.augmentations import DaliForm
from effnet.data.dali.augmentation import augmented
from effnet.data.dali.library import INTERPOLATIONS, fn, pipeline_def, types
from effnet.data.decode import Readable
from effnet.data.feed import Array
from effnet.data.preprocessing import Preprocessing
from effnet.data.randomness import Stream, generator
from effnet.data.transforms import crop_box
from effnet.recipe import DataSettings

Decoder = Literal["cpu", "mixed"]
"""the decoder's device: the CPU, or the GPU with its JPEG hardware if it has any"""

# The largest image of ImageNet: the hardware decoder's memory does not have to grow later.
_LARGEST = {"preallocate_height_hint": 6430, "preallocate_width_hint": 5980}


class Graph(Protocol):
    """A graph from encoded files to images."""

    inputs: list[tuple[Any, int]]
    """DALI's type and number of dimensions of each array that `draw` returns"""

    def draw(self, image: Readable, epoch: int, index: int) -> tuple[Array, ...]:
        """See `effnet.data.feed.Draw`."""

    def __call__(self, encoded: Any, *drawn: Any) -> Any:
        """Return the nodes from encoded images and the arrays of `draw` to uint8 (side, side, 3)."""


@dataclass(frozen=True)
class Stages:
    """DALI's operators with the settings that training and validation share."""

    decoder: Decoder
    preprocessing: Preprocessing

    def decoding(self) -> dict[str, Any]:
        """Return keyword arguments of decoders."""
        if self.decoder == "cpu":
            return {"device": "cpu"}
        return {"device": "mixed", "jpeg_fancy_upsampling": True, **_LARGEST}  # colours as on the CPU

    def resized(self, images: Any, **shape: Any) -> Any:
        """Resize, then crop and flip if `shape` says so."""
        kind = INTERPOLATIONS[self.preprocessing.interpolation]
        side = self.preprocessing.image_size
        return fn.resize_crop_mirror(images, interp_type=kind, crop=(side, side), **shape)


class TrainGraph:
    """Random resized crop, horizontal flip and automatic augmentation; see `transforms.TrainTransform`."""

    def __init__(self, stages: Stages, settings: DataSettings, seed: int, augment: DaliForm | None) -> None:
        self.stages, self.settings, self.seed, self.augment = stages, settings, seed, augment
        self.inputs = [(types.INT32, 1), (types.INT32, 1), (types.INT32, 0)]
        if augment:
            self.inputs.append((types.INT32, 2))

    def __call__(self, encoded: Any, start: Any, size: Any, flip: Any, *augment: Any) -> Any:
        """See `Graph`."""
        side = self.stages.preprocessing.image_size
        images = fn.decoders.image_slice(
            encoded, start=start, shape=size, axes=(0, 1), **self.stages.decoding()
        )
        images = self.stages.resized(images, size=(side, side), mirror=flip)
        return augmented(self.augment, images, *augment) if self.augment else images

    def draw(self, image: Readable, epoch: int, index: int) -> tuple[Array, ...]:
        """Return the crop's start and size, the flip (0 or 1), and the augmentation's numbers."""
        random = generator(Stream.SAMPLE, self.seed, epoch, index)
        box = crop_box(image.height, image.width, self.settings.crop_scale, self.settings.crop_ratio, random)
        start, size = np.array(box, np.int32).reshape(2, 2)
        flip = np.array(random.random() < self.settings.hflip, np.int32)
        return (start, size, flip, self.augment.draw(random)) if self.augment else (start, size, flip)


class ValGraph:
    """Resize of the shorter side and centre crop; see `transforms.ValTransform`."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self.inputs = [(types.FLOAT, 1), (types.FLOAT, 1)]

    def __call__(self, encoded: Any, *drawn: Any) -> Any:
        """See `Graph`."""
        size, place = drawn
        images = fn.decoders.image(encoded, **self.stages.decoding())
        return self.stages.resized(images, size=size, crop_pos_y=place[0], crop_pos_x=place[1])

    def draw(self, image: Readable, epoch: int, index: int) -> tuple[Array, ...]:
        """Return the size to resize to, and the crop's start as a share of the free space."""
        side, resize = self.stages.preprocessing.image_size, self.stages.preprocessing.resize
        shape = np.array(image.original, np.int64)
        size = resize * shape // shape.min()
        space = size - side
        return size.astype(np.float32), (np.round(space / 2) / np.maximum(space, 1)).astype(np.float32)


@pipeline_def(enable_conditionals=True)
def prepared(batches: Any, graph: Graph, to_gpu: bool) -> Any:
    """Pipeline of a loader: uint8 (N, image_size, image_size, 3)."""
    inputs = [(types.UINT8, 1), *graph.inputs]
    encoded, *drawn = fn.external_source(
        batches,
        num_outputs=len(inputs),
        dtype=[kind for kind, _ in inputs],
        ndim=[ndim for _, ndim in inputs],
        no_copy=True,
    )
    images = graph(encoded, *drawn)
    return images.gpu() if to_gpu else images
