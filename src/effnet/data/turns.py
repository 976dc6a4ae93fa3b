"""Threads that prepare images in turns with a training on the same cores.

A training on a CPU computes with all the cores that it has. A process that decodes beside it takes one of them in
the middle of an operator, whose other threads then wait. Here the training stops for as long as the threads of its own
process take for the next batches. While it computes, they do nothing but wait for files, and that only where files come
slowly. No pixels go from process to process.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import torch

from effnet.data.decode import Readable
from effnet.data.position import Indices
from effnet.data.reads import ThreadReads
from effnet.data.request import DataRequest
from effnet.data.work import BatchWork, Result, UnfinishedBatch
from effnet.data.workers import local_processes, usable_cores
from effnet.runtime.errors import UserError
from effnet.runtime.lone_threads import lone_threads

_SLOW_S = 0.0005
"""seconds to open an image, above which it comes from a disk or over a network and not from memory"""


def computes_on_all_cores(request: DataRequest) -> bool:
    """Return True if the processes of a run, assumed to be on this machine, compute with all cores they may use."""
    computing = local_processes(request.world_size) * torch.get_num_threads()
    return request.device.type == "cpu" and computing >= usable_cores()


class TurnsLoader:
    """Iterates over batches. Its threads start with the first iteration and stay.

    Args:
        work: what is to be done.
        batches: the batches, epoch and indices of each: the rest of an epoch for each iteration.
        threads: threads.
        ahead: batches of a turn.
        timeout: seconds with one image after which a thread counts as stuck.
        name_of: returns the name of an image for the message.
    """

    def __init__(
        self,
        work: BatchWork,
        batches: Iterable[tuple[int, Indices]],
        *,
        threads: int,
        ahead: int,
        timeout: float,
        name_of: Callable[[int], str],
    ) -> None:
        self._work, self._batches, self._threads, self._ahead = work, batches, threads, ahead
        self._pool: ThreadPoolExecutor | None = None
        self._reads = ThreadReads(timeout, name_of)
        self._opening: list[float] = []
        """seconds that each image of the latest turn took to open"""

    def __iter__(self) -> Iterator[Result]:
        """Yield the results.

        Raises:
            UserError: a thread is stuck.
        """
        if self._pool is None:
            self._pool = lone_threads(self._threads, "images")
        batches = iter(self._batches)
        turn = self._opened(batches)
        while turn:
            self._prepare(turn)
            following = self._opened(batches)
            yield from (batch.result() for batch in turn)
            turn = following

    def stop(self) -> None:
        """End the threads; the next iteration starts others."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _opened(self, batches: Iterator[tuple[int, Indices]]) -> list[UnfinishedBatch]:
        """Return the batches of the next turn; the threads open their images from now on if that takes long."""
        assert self._pool is not None
        is_slow = sum(self._opening) > _SLOW_S * len(self._opening)
        self._opening.clear()
        turn = [
            UnfinishedBatch(self._work, epoch, indices) for epoch, indices in islice(batches, self._ahead)
        ]
        for batch in turn:
            for row, opener in enumerate(batch.openers):
                open_it = partial(self._open, batch.image(row), opener)
                batch.openers[row] = self._pool.submit(open_it).result if is_slow else open_it
        return turn

    def _prepare(self, turn: list[UnfinishedBatch]) -> None:
        assert self._pool is not None
        rows = iter([(batch, row) for batch in turn for row in range(len(batch))])
        shares = [self._pool.submit(self._share, rows) for _ in range(self._threads)]
        try:
            self._reads.wait(shares)
        except UserError:
            self.stop()
            raise

    def _open(self, image: int, opener: Callable[[], Readable]) -> Readable:
        begun = time.perf_counter()
        with self._reads.reading(image):
            opened = opener()
        self._opening.append(time.perf_counter() - begun)
        return opened

    def _share(self, rows: Iterator[tuple[UnfinishedBatch, int]]) -> None:
        """Prepare images, one after the other, until all of the turn are taken."""
        for batch, row in rows:
            with self._reads.reading(batch.image(row)):
                batch.prepare(row)
