"""Images of several requests are computed in one batch.

One thread computes. While it does, images gather, and the next batch takes what is there: under load batches grow by
themselves, and a lone image never waits for others that nobody has sent.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from effnet.data.decode import Pixels
from effnet.inference.classifier import Row

Compute = Callable[[Sequence[Pixels]], list[Row]]


class _Waiting(NamedTuple):
    pixels: Pixels
    answer: "Future[Row]"
    since: float
    """time of the monotonic clock"""


class Batcher:
    """A thread that computes images in batches.

    Args:
        compute: rows of answers for images.
        sizes: sizes that batches may have, among them 1.
        trial: sizes of the batches that are computed for a trial.
        side: side of the images for the trial, in pixels.
        max_wait: seconds that an image waits for expected ones.
        prepare_thread: called in the thread before it computes.
        observe: called after each batch with its size and the seconds that it took.

    Attributes:
        ready: done when the trial is over, or with its error.
    """

    def __init__(
        self,
        compute: Compute,
        sizes: Sequence[int],
        side: int,
        *,
        trial: Sequence[int],
        max_wait: float,
        prepare_thread: Callable[[], None],
        observe: Callable[[int, float], None],
    ) -> None:
        self.ready: Future[None] = Future()
        self._compute, self._sizes, self._side = compute, tuple(sizes), side
        self._trial = tuple(trial)
        self._max_wait, self._prepare_thread, self._observe = max_wait, prepare_thread, observe
        self._waiting: deque[_Waiting] = deque()
        self._expected = 0
        self._is_closed = False
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True, name="effnet-batcher").start()

    def expect(self, count: int = 1) -> None:
        """Announce images that are being decoded; each is to be submitted, or withdrawn."""
        with self._changed:
            self._expected += count

    def withdraw(self) -> None:
        """Take back one expected image, which will not come."""
        with self._changed:
            self._expected -= 1
            self._changed.notify()

    def submit(self, pixels: Pixels) -> "Future[Row]":
        """Queue an expected image uint8 (H, W, 3); return its answer to come, which may be cancelled."""
        answer: Future[Row] = Future()
        with self._changed:
            self._expected -= 1
            self._waiting.append(_Waiting(pixels, answer, time.monotonic()))
            self._changed.notify()
        return answer

    def close(self) -> None:
        """End the thread once it has answered what is queued."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        try:
            self._prepare_thread()
            for size in self._trial:
                self._compute([np.zeros((self._side, self._side, 3), np.uint8)] * size)
        except BaseException as error:
            self.ready.set_exception(error)
            return
        self.ready.set_result(None)
        while batch := self._next():
            self._answer(batch)
            del batch  # or the pixels would stay in memory until the next request

    def _next(self) -> list[_Waiting]:
        """Wait for images and return those of the next batch; none after the end."""
        with self._changed:
            while not self._wanted():
                if self._is_closed:
                    return []
                self._changed.wait()
            end = self._waiting[0].since + self._max_wait
            while self._expected and len(self._waiting) < max(self._sizes):
                if (left := end - time.monotonic()) <= 0:
                    break
                self._changed.wait(left)
            size = max(size for size in self._sizes if size <= len(self._waiting))
            return [self._waiting.popleft() for _ in range(size)]

    def _wanted(self) -> deque[_Waiting]:
        """Return what waits, after leaving out images whose request has run out of time."""
        self._waiting = deque(image for image in self._waiting if not image.answer.cancelled())
        return self._waiting

    def _answer(self, batch: list[_Waiting]) -> None:
        # The time of a request may be over by now; its image is computed all the same.
        wanted = [image.answer.set_running_or_notify_cancel() for image in batch]
        started = time.monotonic()
        try:
            rows = self._compute([image.pixels for image in batch])
        except Exception as error:
            for image, is_wanted in zip(batch, wanted, strict=True):
                if is_wanted:
                    image.answer.set_exception(error)
            return
        self._observe(len(batch), time.monotonic() - started)
        for image, row, is_wanted in zip(batch, rows, wanted, strict=True):
            if is_wanted:
                image.answer.set_result(row)


def batch_sizes(largest: int, *, compiles_each_size: bool) -> list[int]:
    """Return the sizes that batches may have: all, or for an engine that compiles each of them, the powers of two.

    Args:
        largest: the largest; always among them.
        compiles_each_size: as in `effnet.inference.engines.network.Network`.
    """
    if not compiles_each_size:
        return list(range(1, largest + 1))
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest]
    return [*sizes, largest]
