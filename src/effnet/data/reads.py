"""Images that threads read, so that a stuck one is told."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from typing import Any

from effnet.data.watched import POLL_S, stuck_message
from effnet.runtime.errors import UserError


class ThreadReads:
    """The images that threads read, and since when.

    Args:
        timeout: seconds with one image after which a thread counts as stuck.
        name_of: returns the name of an image for the message.
    """

    def __init__(self, timeout: float, name_of: Callable[[int], str]) -> None:
        self._timeout, self._name_of = timeout, name_of
        self._images: dict[int, tuple[int, float]] = {}
        """by thread"""

    @contextmanager
    def reading(self, image: int) -> Iterator[None]:
        """Note that this thread reads an image; blocks may be nested."""
        thread = threading.get_ident()
        before = self._images.get(thread)
        self._images[thread] = image, time.monotonic()
        try:
            yield
        finally:
            if before is None:
                del self._images[thread]
            else:
                self._images[thread] = before

    def wait(self, calls: Iterable[Future[Any]]) -> None:
        """Wait until all calls have returned, or raise the error of the first that has raised one.

        Raises:
            UserError: a thread is stuck.
        """
        running = set(calls)
        while running:
            done, running = wait(running, min(POLL_S, self._timeout), FIRST_EXCEPTION)
            for call in done:
                call.result()
            if running:
                self._raise_if_stuck()

    def _raise_if_stuck(self) -> None:
        oldest = time.monotonic() - self._timeout
        stuck = [image for image, began in self._images.copy().values() if began <= oldest]
        if stuck:
            raise UserError(stuck_message(self._timeout, f"a thread still reads {self._name_of(stuck[0])}"))
