"""Threads that prepare images in turns with the training: what they prepare, when, and what they leave alone."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from effnet.data import DataSource, Loader, turns
from effnet.data.decode import EncodedImage
from effnet.data.image_files import ImageFiles
from effnet.data.transforms import TrainTransform
from effnet.runtime.errors import UserError

from .archives import make_tar, make_zip
from .batches import assert_same
from .conftest import Opened


@pytest.fixture(autouse=True)
def all_cores() -> Iterator[None]:
    """Let PyTorch compute with all cores, as it does where nobody says otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    yield
    torch.set_num_threads(before)


def train(data: DataSource) -> Loader:
    assert data.train is not None
    return data.train


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_threads_take_the_place_of_processes(opened: Opened) -> None:
    before, children = len(threads()), set(active_children())
    loader = train(opened(workers=3))
    next(iter(loader))
    assert len(threads()) - before == 3
    assert set(active_children()) == children
    loader.close()  # type: ignore[attr-defined]
    for thread in threads()[before:]:
        thread.join(10)
    assert len(threads()) == before


def test_processes_do_where_cores_are_left_to_them(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(1 + torch.get_num_threads())))
    before, children = len(threads()), set(active_children())
    loader = train(opened(workers=1))
    next(iter(loader))
    assert len(threads()) == before
    assert len(set(active_children()) - children) == 1
    loader.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (3, 2), (2, 4), (2, 64)])
def test_batches_are_those_of_the_process_itself(opened: Opened, workers: int, prefetch: int) -> None:
    settings = {"augmentation": "autoaugment", "random_erasing": 0.5}
    alone = train(opened(**settings))
    epochs = [list(alone), list(alone)]
    loader = train(opened(workers=workers, prefetch=prefetch, **settings))
    assert_same(loader, epochs[0])
    assert_same(islice(loader, 2), epochs[1][:2])
    assert loader.state_dict() == {"epoch": 1, "step": 2}
    assert_same(loader, epochs[1][2:])  # after an iteration that was given up


def test_validation_has_every_image_once(opened: Opened) -> None:
    loader = opened(workers=2, batch_size=3).val
    assert loader is not None
    found = [batch.indices.tolist() for batch in loader if batch.indices is not None]
    assert found == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_archives(opened: Opened, folder: Path, tmp_path: Path, make: Callable[[Path, Path], Path]) -> None:
    archive = make(folder, tmp_path / f"images.{make.__name__[-3:]}")
    assert_same(train(opened(path=archive, workers=2)), list(train(opened())))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, [(8, 8), (8, 8), (16, 16), (16, 16), (20, 20)]),
        (0.02, [(8, 16), (8, 16), (16, 20), (16, 20), (20, 20)]),
    ],
)
def test_images_are_prepared_in_turn_and_opened_ahead_if_that_takes_long(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(turns, "_SLOW_S", 0.01)  # however slow the machine is
    prepared: list[int] = []
    read: list[int] = []
    prepare, image = TrainTransform.__call__, ImageFiles.image

    def noted(self: TrainTransform, of: EncodedImage, epoch: int, index: int) -> object:
        prepared.append(index)
        return prepare(self, of, epoch, index)

    def opened_image(self: ImageFiles, index: int) -> EncodedImage:
        read.append(index)
        time.sleep(seconds)
        return image(self, index)

    monkeypatch.setattr(TrainTransform, "__call__", noted)
    monkeypatch.setattr(ImageFiles, "image", opened_image)
    counts = []
    for _ in train(opened(workers=2, prefetch=1)):  # turns of 2 batches; 5 batches of 4
        time.sleep(0.3)  # a step
        counts.append((len(prepared), len(read)))
    assert counts == expected


def broken(folder: Path, tmp_path: Path) -> Path:
    """The folder with one image that ends early."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", folder, copy], check=True)
    file = copy / "train/dog/3.jpg"
    file.write_bytes(file.read_bytes()[:700])
    return copy


def test_a_broken_image_is_named_after_the_batches_before_it(
    opened: Opened, folder: Path, tmp_path: Path
) -> None:
    path = broken(folder, tmp_path)
    expected: list[object] = []
    with pytest.raises(UserError) as alone:
        expected.extend(train(opened(path=path)))
    found: list[object] = []
    with pytest.raises(UserError, match="dog/3.jpg: can't be decoded") as in_turns:
        found.extend(train(opened(path=path, workers=2, prefetch=8)))
    assert str(in_turns.value) == str(alone.value)
    assert len(found) == len(expected)


def test_a_broken_image_is_left_out(opened: Opened, folder: Path, tmp_path: Path) -> None:
    path = broken(folder, tmp_path)
    alone = train(opened(path=path, on_bad_image="skip"))
    batches = list(alone)
    loader = train(opened(path=path, on_bad_image="skip", workers=2))
    assert_same(loader, batches)
    assert loader.bad_images == alone.bad_images
    assert len(loader.bad_images) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stuck_read_is_told(opened: Opened, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    image, answers = ImageFiles.image, threading.Event()
    indices = list(train(opened()))[1].indices
    assert indices is not None

    def stuck(self: ImageFiles, index: int) -> EncodedImage:
        if index == indices[2]:
            answers.wait(60)
        return image(self, index)

    monkeypatch.setattr(ImageFiles, "image", stuck)
    loader = train(opened(workers=workers, data_timeout=1, prefetch=1))
    words = r"no data for 1 s \(--data-timeout\): a thread still reads .*/train/\w+/\d+.jpg; see"
    with pytest.raises(UserError, match=words):
        for _ in loader:
            pass
    answers.set()
    monkeypatch.undo()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    assert list(loader)  # with other threads


def test_an_error_of_the_program_shows_its_own_traceback(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(TrainTransform, "__call__", fails)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        next(iter(train(opened(workers=2))))


COUNTS = """
import os, sys, torch
from pathlib import Path
from effnet.data import DataRequest, Preprocessing, open_data
from effnet.recipe import Recipe
from tests.runs import resolved

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(len(os.sched_getaffinity(0)))
recipe = resolved(Recipe().replace({"workers": 3, "batch_size": 4, "augmentation": "autoaugment"}))
data = open_data(DataRequest(recipe, Path(sys.argv[1]), Preprocessing(64, 72, "bilinear"), torch.device("cpu"), 0, 1))
torch.zeros(1 << 20).add_(1)  # starts PyTorch's own
before, count = threads(), torch.get_num_threads()
for _ in data.train:
    pass
torch.zeros(1 << 20).add_(1)
print(threads() - before, torch.get_num_threads() == count)
"""


def test_no_further_teams_of_openmp_are_started(folder: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", COUNTS, folder], capture_output=True, text=True, check=False, timeout=120
    )
    assert re.fullmatch(r"3 True\n", run.stdout), run.stdout + run.stderr
