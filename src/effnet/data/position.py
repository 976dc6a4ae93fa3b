"""The position in the data, and which images belong to a step."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from effnet.data.randomness import Stream, generator
from effnet.data.sampling import repeated
from effnet.runtime.errors import UserError

Indices = npt.NDArray[np.int64]


class Position:
    """Mixin of loaders: `epoch`, and `step`, the batches of it handed out so far."""

    epoch = 0
    step = 0
    bad_images: dict[str, str]

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and the images left out so far; see `effnet.data.Loader`."""
        left_out = {"bad_images": dict(self.bad_images)} if self.bad_images else {}
        return {"epoch": self.epoch, "step": self.step, **left_out}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `state_dict` returned."""
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.bad_images = dict(state.get("bad_images", {}))

    def _next_epoch(self) -> None:
        self.epoch, self.step = self.epoch + 1, 0


class TrainOrder:
    """Shuffled batches of equal size for one process of several.

    The order of an epoch depends on the seed and the epoch alone. It is cut into global batches of
    `batch_size * world_size` images, of which each process takes its part, so that a step sees the same
    images however many processes share it. The incomplete global batch at the end is dropped.

    Args:
        num_images: images of the split.
        batch_size: images in a batch of one process.
        seed: seed of the run.
        rank: number of this process.
        world_size: processes of the run.
        sample: returns `number` images of an epoch in any order, (number, generator); None for every image once. The
            k-th repetition of an image, from 0, stands in the batches as its position + k * num_images.

    Raises:
        UserError: there are fewer images than a global batch has.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        sample: Callable[[int, np.random.Generator], Indices] | None = None,
    ) -> None:
        self.num_images, self.batch_size, self.seed, self._sample = num_images, batch_size, seed, sample
        self.rank, self.global_batch = rank, batch_size * world_size
        if num_images < self.global_batch:
            processes = f" in each of {world_size} processes" if world_size > 1 else ""
            raise UserError(
                f"--batch-size {batch_size}{processes} is more than the {num_images} training images; "
                f"take at most {num_images // world_size}"
            )

    def __len__(self) -> int:
        return self.num_images // self.global_batch

    def batches(self, epoch: int, step: int) -> Iterator[Indices]:
        """Images of this process from `step` of `epoch` to the epoch's end, batch by batch."""
        order = self._order(generator(Stream.ORDER, self.seed, epoch))
        for first in range(step * self.global_batch, len(self) * self.global_batch, self.global_batch):
            mine = first + self.rank * self.batch_size
            yield order[mine : mine + self.batch_size]

    def _order(self, random: np.random.Generator) -> Indices:
        if self._sample is None:
            return random.permutation(self.num_images)
        drawn = self._sample(len(self) * self.global_batch, random)
        return repeated(random.permutation(drawn), self.num_images)


class ValOrder:
    """Every image exactly once over all processes, in order; process r takes images r, r + world_size, ...

    With `every` N, of each N images the first alone counts as one.
    """

    def __init__(
        self, num_images: int, batch_size: int, rank: int, world_size: int, *, every: int = 1
    ) -> None:
        self.batch_size = batch_size
        self.mine = range(rank * every, num_images, world_size * every)

    def __len__(self) -> int:
        return -(-len(self.mine) // self.batch_size)

    def batches(self, epoch: int, step: int) -> Iterator[Indices]:
        """Images of this process from `step` to the end, batch by batch; the last batch may be smaller."""
        for first in range(step * self.batch_size, len(self.mine), self.batch_size):
            yield np.array(self.mine[first : first + self.batch_size], dtype=np.int64)
