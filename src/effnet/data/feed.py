"""Input of DALI's pipelines: encoded images and the random numbers for each, batch by batch.

Threads read the files and draw while DALI's own threads decode earlier batches. (Drawn by a Python operator
inside the pipeline, the numbers would cost DALI's threads a wait in every batch.)
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from effnet.data.decode import BadImageError, EncodedImage, Pixels, Readable
from effnet.data.position import Indices, TrainOrder, ValOrder
from effnet.data.reads import ThreadReads
from effnet.data.watched import DATA_TIMEOUT_S
from effnet.data.work import Images

Array = npt.NDArray[Any]
_BATCHES_AHEAD = 2  # so that one is read while another is handed over
_NOT_FOR_DALI = (
    b"GIF8"  # first bytes of files that DALI has no decoder for; others that it refuses are found later
)


class Draw(Protocol):
    """The further inputs that a transform takes for an image."""

    def __call__(self, image: Readable, epoch: int, index: int) -> tuple[Array, ...]:
        """Return one array for each further input of the pipeline, of the same shapes for every image."""


class _Item(NamedTuple):
    content: Array
    drawn: tuple[Array, ...]


class Feed:
    """Source of a pipeline.

    Args:
        images: the split.
        order: which images a batch has.
        draw: what goes along with each.
        threads: readers.
        lent: how many batches the pipeline may hold at a time. It works on the arrays themselves, which saves a
            tenth of its time, so they have to stay.
        timeout: seconds with one image after which a reader counts as stuck.
    """

    def __init__(
        self,
        images: Images,
        order: TrainOrder | ValOrder,
        draw: Draw,
        *,
        threads: int,
        lent: int,
        timeout: float = DATA_TIMEOUT_S,
    ) -> None:
        self.images, self.order, self.draw, self.threads = images, order, draw, threads
        self._reads = ThreadReads(timeout, images.file)
        self._lent: deque[Any] = deque(maxlen=lent)
        # Not opened and closed in `batches`: closing waits for threads, and the garbage collector, which ends an
        # abandoned iteration, may run where another thread's start is waited for.
        self._pool = ThreadPoolExecutor(threads)
        self.refused: set[int] = set()
        """images that DALI's decoders refuse; they enter as pixels"""
        self.bad: dict[int, BadImageError] = {}
        """images that nothing decodes: a black dot keeps their place in the batch"""

    def batches(self, epoch: int, step: int) -> Iterator[tuple[list[Array] | Array, ...]]:
        """Contents (uint8, one array an image), then what was drawn (N, ...), from here on, epoch after epoch.

        Raises:
            UserError: a reader is stuck.
        """
        ahead: deque[list[Future[list[_Item]]]] = deque()
        for of_epoch, indices in self._positions(epoch, step):
            ahead.append([self._pool.submit(self._items, of_epoch, part) for part in self._parts(indices)])
            if len(ahead) > _BATCHES_AHEAD:
                self._lent.append(batch := _collated([self._finished(part) for part in ahead.popleft()]))
                yield batch

    def _finished(self, part: Future[list[_Item]]) -> list[_Item]:
        self._reads.wait([part])
        return part.result()

    def _positions(self, epoch: int, step: int) -> Iterator[tuple[int, Indices]]:
        while True:
            for indices in self.order.batches(epoch, step):
                yield epoch, indices
            epoch, step = epoch + 1, 0

    def _parts(self, indices: Indices) -> list[Indices]:
        return [part for part in np.array_split(indices, self.threads) if len(part)]

    def _items(self, epoch: int, indices: Indices) -> list[_Item]:
        wanted: Sequence[int] = (indices % len(self.images)).tolist()
        return [
            self._item(epoch, index, place, opener)
            for index, place, opener in zip(wanted, indices.tolist(), self.images.read(wanted), strict=True)
        ]

    def _item(self, epoch: int, index: int, place: int, opener: Callable[[], Readable]) -> _Item:
        """Return an image; `place` is its place in the order, which differs for a sampler's repetitions of it."""
        try:
            with self._reads.reading(index):
                image = opener()
                content = self._content(index, image)
        except BadImageError as error:
            self.bad[index] = error
            dot = _as_file(np.zeros((1, 1, 3), np.uint8))
            image, content = EncodedImage(error.name, dot), np.frombuffer(dot, np.uint8)
        return _Item(content, self.draw(image, epoch, place))

    def _content(self, index: int, image: Readable) -> Array:
        """The image's file, or where DALI can't decode that, its pixels as one."""
        if (
            isinstance(image, EncodedImage)
            and index not in self.refused
            and not image.data.startswith(_NOT_FOR_DALI)
        ):
            return np.frombuffer(image.data, np.uint8)
        return np.frombuffer(_as_file(image.decode()), np.uint8)


def _as_file(pixels: Pixels) -> bytes:
    """An image in the simplest format there is (PPM)."""
    return b"P6 %d %d 255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


def _collated(parts: list[list[_Item]]) -> tuple[list[Array] | Array, ...]:
    items = [item for part in parts for item in part]
    drawn = zip(*(item.drawn for item in items), strict=True)
    return [item.content for item in items], *(np.stack(arrays) for arrays in drawn)
