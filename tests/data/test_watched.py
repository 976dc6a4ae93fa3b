"""The processes that load images: stuck, killed, signalled, orphaned."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from effnet.data.feed import Feed
from effnet.data.position import ValOrder
from effnet.data.watched import WatchedLoader, reading
from effnet.runtime.errors import UserError
from effnet.runtime.signals import HANDLED
from tests.waiting import ends, lives


class Steps(Dataset[Any]):
    """A data set whose items call a function; the item's number is the image."""

    def __init__(self, call: Callable[[int], Any], length: int = 4) -> None:
        self.call, self.length = call, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Any:
        with reading() as note:
            note(number)
            return self.call(number)


def loader(call: Callable[[int], Any], *, workers: int, timeout: float = 30, **options: Any) -> WatchedLoader:
    return WatchedLoader(
        Steps(call),
        workers=workers,
        timeout=timeout,
        name_of="image {}.jpg".format,
        batch_size=None,
        **options,
    )


def block_at_2(number: int) -> int:
    """Open a pipe that nobody writes to, as a read from a disk that does not answer."""
    if number == 2:
        folder = Path(os.environ["FIFO"])
        (folder / "2.jpg").open("rb")
    return number


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stuck_read_is_told(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "2.jpg")
    monkeypatch.setenv("FIFO", str(tmp_path))
    monkeypatch.setenv("RANK", "3")
    results: list[int] = []
    before = set(active_children())
    reader = "it" if workers == 0 else "worker 0"
    words = f"process 3: no data for 0.7 s (--data-timeout): {reader} still reads image 2.jpg; see"
    with pytest.raises(UserError, match=re.escape(words)):
        results.extend(loader(block_at_2, workers=workers, timeout=0.7))
    assert results == [0, 1]
    started = set(active_children()) - before
    for child in started:
        child.join(timeout=10)
    assert not any(child.is_alive() for child in started)


KEEPS = """
import gc
from multiprocessing import active_children
from tests.data.test_watched import loader
gc.disable()
{}
print(*(child.pid for child in active_children()))
"""


@pytest.mark.parametrize(
    "kept",
    [
        "kept = loader(abs, workers=2, persistent_workers=True); assert list(kept) == [0, 1, 2, 3]",
        # Such as the traceback of an error keeps it.
        "kept = loader(abs, workers=2)._iterated()",
    ],
    ids=["loader", "iterator of a loader that is gone"],
)
def test_a_program_that_keeps_workers_ends(kept: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KEEPS.format(kept)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = map(int, done.stdout.split())
    assert not lives(first)
    assert not lives(second)


def test_a_slow_worker_is_not_stuck() -> None:
    def slowly(number: int) -> int:
        with reading() as note:
            for image in range(4):
                note(image)
                time.sleep(0.3)
        return number

    assert list(loader(slowly, workers=1, timeout=0.8)) == [0, 1, 2, 3]


def test_a_killed_worker_is_told() -> None:
    def killed(number: int) -> int:
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    words = "a loader worker was killed by SIGKILL, possibly out of memory; lower --workers"
    with pytest.raises(UserError, match=re.escape(words)):
        list(loader(killed, workers=2))


def test_a_worker_killed_with_its_results_waiting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = loader(lambda number: torch.zeros(1000), workers=1, prefetch_factor=4)
    results = iter(watched)
    next(results)
    (worker,) = watched._processes
    time.sleep(1)
    os.kill(worker.pid, signal.SIGKILL)
    # Its sockets are closed before the kernel counts it as ended.
    monkeypatch.setattr(worker, "is_alive", lambda: True)
    with pytest.raises(UserError, match="a loader worker was killed by SIGKILL"):
        list(results)


def test_an_error_of_the_work_is_no_killed_worker() -> None:
    def fails(number: int) -> int:
        raise RuntimeError(f"a bug at {number}")

    with pytest.raises(RuntimeError, match="a bug at 0"):
        list(loader(fails, workers=1))


def test_workers_take_no_signals() -> None:
    def patient(number: int) -> int:
        time.sleep(0.2)
        return number

    results = iter(loader(patient, workers=2, persistent_workers=True))
    assert next(results) == 0
    for child in active_children():
        for number in HANDLED:
            os.kill(child.pid or 0, number)
    assert list(results) == [1, 2, 3]


PARENT = """
import time
from multiprocessing import active_children
from tests.data.test_watched import loader

def asleep(number):
    if number:
        time.sleep(60)
    return number

results = iter(loader(asleep, workers=2))
next(results)
print(*(child.pid for child in active_children()), flush=True)
time.sleep(60)
"""


def test_workers_end_with_their_parent() -> None:
    repository = str(Path(__file__).parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=repository, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(workers) == 2
    assert all(map(lives, workers))
    parent.kill()
    parent.wait()
    assert all(ends(worker, within=10) for worker in workers)


class Blocked:
    """Images of which the one with index 1 is never read."""

    targets = None

    def __len__(self) -> int:
        return 2

    def file(self, index: int) -> str:
        return f"image {index}.jpg"

    def read(self, indices: list[int]) -> list[Callable[[], Any]]:
        return [lambda: time.sleep(3) for _ in indices]


def test_a_stuck_thread_of_dali_is_told() -> None:
    feed = Feed(Blocked(), ValOrder(2, 1, 0, 1), lambda *_: (), threads=1, lent=2, timeout=0.3)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"--data-timeout\): a thread still reads image 0\.jpg"):
        next(feed.batches(0, 0))
