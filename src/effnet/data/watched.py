"""A DataLoader that tells in one line what is wrong with its workers, and whose workers end with their parent."""

import atexit
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from effnet.data import politeness
from effnet.runtime.children import end_with_parent
from effnet.runtime.errors import UserError
from effnet.runtime.signals import starting_children

DATA_TIMEOUT_S = 300.0
"""seconds without a result after which a worker counts as stuck, where the settings do not say"""
POLL_S = 5.0
"""seconds between two looks at what the workers do"""
_END_S = 5.0
"""seconds within which a killed process has ended"""
_IDLE = -1

Places = npt.NDArray[np.int64]
"""(processes, 2) image that each reads, or `_IDLE`, and when it began: nanoseconds of the monotonic clock"""


def _places(processes: int) -> torch.Tensor:
    return torch.full((processes, 2), _IDLE, dtype=torch.int64)


_here: Places = _places(1).numpy()
"""the place of this process; of a worker, a part of its `WatchedLoader`'s memory"""


@contextmanager
def reading() -> Iterator[Callable[[int], None]]:
    """Tell whoever waits for this process which image it reads: call what this yields with the index of each."""
    here = _here[0]

    def note(index: int) -> None:
        here[:] = index, time.monotonic_ns()

    try:
        yield note
    finally:
        here[0] = _IDLE


class WatchedLoader:
    """Iterates over a DataLoader, whose workers end with this process and take no signals meant for it.

    Args:
        work: the data set, which calls `reading` for its images.
        workers: processes; 0 to work in this one.
        polite: images are prepared at the lowest priority while results are ready (`effnet.data.politeness`).
        timeout: seconds with one image after which a process counts as stuck, or without any while none comes.
        name_of: returns the name of an image for the message.
        options: for the DataLoader, which passes on results unchanged.
    """

    def __init__(
        self,
        work: Dataset[Any],
        *,
        workers: int,
        polite: bool = False,
        timeout: float = DATA_TIMEOUT_S,
        name_of: Callable[[int], str],
        **options: Any,
    ) -> None:
        self._timeout, self._name_of, self._workers = timeout, name_of, workers
        shared = _places(workers).share_memory_()
        self._places: Places = shared.numpy() if workers else _here
        self._waiting = torch.zeros((), dtype=torch.int64).share_memory_() if polite and workers else None
        self._processes: list[Any] = []
        self._open = partial(
            DataLoader[Any],
            work,
            num_workers=workers,
            worker_init_fn=partial(_begin, shared, self._waiting, os.getpid()),
            timeout=min(POLL_S, timeout) if workers else 0,
            collate_fn=_unchanged,
            generator=torch.Generator(),  # else each epoch draws a seed from the process's generator
            **options,
        )
        self._loader = self._open()

    def __iter__(self) -> Iterator[Any]:
        """Yield the results.

        Raises:
            UserError: a worker was killed, or is stuck.
        """
        results = self._started()
        while True:
            try:
                yield self._next(results)
            except StopIteration:
                return

    def stop(self) -> None:
        """End the workers at once, whatever they do; the next iteration starts others."""
        for process in self._processes:
            process.kill()
        self._loader = self._open()

    def _started(self) -> Iterator[Any]:
        """Start the workers, or take those that run."""
        if not self._workers:
            return iter(self._loader)
        try:
            return self._iterated()
        except RuntimeError as error:
            if not _is_late(error):
                raise self._failure(error) from None
            # They are busy with what an iteration that was given up has asked for.
            self.stop()
            return self._iterated()

    def _iterated(self) -> Iterator[Any]:
        before = set(active_children())
        with starting_children(), _kept_child_handler():
            results = iter(self._loader)
        self._processes = [child for child in active_children() if child not in before] or self._processes
        _workers.update(self._processes)
        # The last one registered is called first: before `multiprocessing` sends SIGTERM, which the workers block, and
        # waits for their end.
        atexit.unregister(_kill_workers)
        atexit.register(_kill_workers)
        return results

    def _next(self, results: Iterator[Any]) -> Any:
        if not self._workers:
            return self._next_here(results)
        end = time.monotonic() + self._timeout
        while True:
            try:
                with self._told_to_hurry():
                    return next(results)
            except RuntimeError as error:
                if not _is_late(error) or self._stuck() or (self._idle() and time.monotonic() > end):
                    raise self._failure(error) from None
            except (OSError, EOFError):
                # A result's memory is fetched from its worker.
                if not self._has_lost_one():
                    raise
                raise self._ended() from None

    @contextmanager
    def _told_to_hurry(self) -> Iterator[None]:
        """Let the workers know that this process waits."""
        if self._waiting is None:
            yield
            return
        self._waiting.fill_(1)
        try:
            yield
        finally:
            self._waiting.fill_(0)

    def _has_lost_one(self) -> bool:
        """Return whether a worker ends within a moment: its sockets are closed before it counts as ended."""
        return bool(connection.wait([process.sentinel for process in self._processes], timeout=_END_S))

    def _next_here(self, results: Iterator[Any]) -> Any:
        with _called_every(min(POLL_S, self._timeout), self._raise_if_stuck):
            try:
                return next(results)
            except _StuckError as error:
                raise UserError(str(error)) from None

    def _raise_if_stuck(self) -> None:
        if self._stuck():
            raise _StuckError(self._told())

    def _stuck(self) -> dict[int, int]:
        """Return the images that are read for too long, by worker."""
        oldest = time.monotonic_ns() - self._timeout * 1e9
        places = enumerate(self._places.tolist())
        return {worker: index for worker, (index, began) in places if index != _IDLE and began <= oldest}

    def _idle(self) -> bool:
        return bool((self._places[:, 0] == _IDLE).all())

    def _failure(self, error: RuntimeError) -> Exception:
        """Return what to raise for an error of the DataLoader, after the end of the workers."""
        if _is_late(error):
            message = self._told()
            self.stop()
            return UserError(message)
        if "DataLoader worker (" in str(error):
            return self._ended()
        return error  # of the work itself, with the worker's traceback

    def _ended(self) -> UserError:
        """Return what to raise for a worker that has ended, after the end of the others."""
        for process in self._processes:
            if connection.wait([process.sentinel], timeout=0):
                process.join(_END_S)  # its sockets are closed before its exit code is there
        codes = (process.exitcode for process in self._processes)
        numbers = [-code for code in codes if code is not None and code < 0]
        how = f"was killed by {signal.Signals(numbers[0]).name}" if numbers else "has ended"
        self.stop()
        return UserError(f"a loader worker {how}, possibly out of memory; lower --workers")

    def _told(self) -> str:
        stuck = [
            f"{f'worker {worker}' if self._workers else 'it'} still reads {self._name_of(index)}"
            for worker, index in self._stuck().items()
        ]
        return stuck_message(self._timeout, ", ".join(stuck) or "no worker reads a file")


# Of this process, whoever still holds their loader; `multiprocessing` holds those that run.
_workers: weakref.WeakSet[BaseProcess] = weakref.WeakSet()
os.register_at_fork(after_in_child=_workers.clear)


def _kill_workers() -> None:
    for worker in tuple(_workers):
        worker.kill()


def stuck_message(timeout: float, found: str) -> str:
    """Return the message about images that do not come, with this process's rank where there are several."""
    who = f"process {os.environ['RANK']}: " if "RANK" in os.environ else ""
    return f"{who}no data for {timeout:g} s (--data-timeout): {found}; see whether its disk answers"


def _begin(places: torch.Tensor, waiting: torch.Tensor | None, parent: int, worker: int) -> None:
    """Prepare a worker process, as `worker_init_fn`."""
    global _here
    politeness.begin(waiting)
    _here = places.numpy()[worker : worker + 1]
    end_with_parent(signal.SIGKILL, parent)


@contextmanager
def _kept_child_handler() -> Iterator[None]:
    """Keep the handler of SIGCHLD from PyTorch, whose own raises an error wherever the main thread is.

    The loader itself finds a killed worker when it waits for data.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _unchanged(result: Any) -> Any:
    """Return a worker's result as it is, in place of the default that converts to tensors."""
    return result


def _is_late(error: RuntimeError) -> bool:
    return "DataLoader timed out" in str(error)


class _StuckError(BaseException):
    """Not an `Exception`, so that no handler of broken images takes it for one."""


@contextmanager
def _called_every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Call a function regularly in the block, even within a blocked read; not outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda _number, _frame: call())
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
