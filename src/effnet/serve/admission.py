"""Limits of what a server holds at the same time: images, and bytes of requests."""

from collections.abc import Iterator
from contextlib import contextmanager

from effnet.serve.metrics import Metrics
from effnet.serve.refusal import Refusal, busy

MOST_IMAGES = 64
"""images of a request"""
_REQUESTS_HELD = 8
"""requests of the largest size whose bytes may be in memory"""


class Admission:
    """Counts what requests hold.

    Args:
        queue: images that may wait or be computed.
        max_bytes: bytes of a request.
        metrics: shows the number of images.
    """

    def __init__(self, queue: int, max_bytes: int, metrics: Metrics) -> None:
        self._queue, self._most_bytes = queue, _REQUESTS_HELD * max_bytes
        self._images = self._bytes = 0
        self._metrics = metrics

    def check(self) -> None:
        """Refuse a request that would find the queue full.

        Raises:
            Refusal: it is full.
        """
        if self._images >= self._queue:
            raise busy(f"{self._images} images are waiting")

    @contextmanager
    def images(self, count: int) -> Iterator[None]:
        """Hold places for images within the block.

        Raises:
            Refusal: they are too many for one request, or there is no room for them now.
        """
        most = min(MOST_IMAGES, self._queue)
        if count > most:
            raise Refusal(413, f"{count} images; a request may have {most}")
        if self._images + count > self._queue:
            raise busy(f"{self._images} images are waiting")
        self._add(count)
        try:
            yield
        finally:
            self._add(-count)

    @contextmanager
    def held(self) -> Iterator["Held"]:
        """Count the bytes of a request within the block."""
        held = Held(self)
        try:
            yield held
        finally:
            self._bytes -= held.bytes

    def take(self, count: int) -> None:
        """Count bytes.

        Raises:
            Refusal: all requests together have too many.
        """
        if self._bytes + count > self._most_bytes:
            raise busy("too many bytes of requests are in memory")
        self._bytes += count

    def _add(self, count: int) -> None:
        self._images += count
        self._metrics.waiting.set(self._images)


class Held:
    """The bytes that one request holds.

    Args:
        admission: counts those of all.
    """

    def __init__(self, admission: Admission) -> None:
        self.bytes = 0
        self._admission = admission

    def add(self, count: int) -> None:
        """Count further bytes.

        Raises:
            Refusal: all requests together have too many.
        """
        self._admission.take(count)
        self.bytes += count
