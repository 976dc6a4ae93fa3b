"""Batches that are as large as the memory allows."""

from pathlib import Path

import pytest
import torch

from effnet.recipe import Recipe
from effnet.runtime.memory import available_memory
from effnet.runtime.processes import Processes
from effnet.training import batch_size
from effnet.training.batch_size import fitting_batch_size
from effnet.training.checkpoint import read_checkpoint
from effnet.training.run import train
from effnet.training.setup import open_run
from tests.runs import quick_recipe, records
from tests.training.resumed import interrupted

pytestmark = pytest.mark.usefixtures("small_networks")

ONE = Processes(0, 0, 1, 1, torch.device("cpu"))


@pytest.fixture
def synthetic(tmp_path: Path) -> Recipe:
    return quick_recipe(tmp_path, data_backend="synthetic", num_classes=5, batch_size="auto")


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_it_fits_and_twice_as_many_images_would_not(
    synthetic: Recipe, monkeypatch: pytest.MonkeyPatch, recompute: bool
) -> None:
    settings = synthetic.replace({"recompute": recompute})
    monkeypatch.setattr(batch_size, "available_memory", lambda: 170 * 2**20)
    found = fitting_batch_size(settings, None, ONE)
    assert found.bit_count() == 1
    opened = open_run(settings.replace({"batch_size": found}), None, ONE, ("train",))
    budget = 0.8 * 170 * 2**20 - 8 * batch_size._weights(opened.model)
    assert batch_size._peak(opened, found) < budget
    assert batch_size._peak(opened, 2 * found) > 0.9 * budget
    assert found >= 4


@pytest.mark.slow
def test_recomputing_is_counted(synthetic: Recipe) -> None:
    def peak(recompute: bool) -> int:
        settings = synthetic.replace({"recompute": recompute, "batch_size": 64})
        return batch_size._peak(open_run(settings, None, ONE, ("train",)), 64)

    assert peak(True) < 0.75 * peak(False)


def test_bytes_are_counted_while_they_are_held() -> None:
    with batch_size._Allocated() as allocated:
        first = torch.zeros(1000)
        second = first.view(10, 100) + 1
        del first
        third = second * second
    assert allocated.peak == 8000
    assert third.sum() == 1000


@pytest.mark.slow
def test_a_run_keeps_its_batch_when_it_goes_on(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick_recipe(tmp_path, batch_size="auto", lr=None, epochs=1, training_only=True)
    monkeypatch.setattr(batch_size, "_extrapolated", lambda opened, most: 7)
    monkeypatch.setattr(batch_size, "_STEPS_PER_EPOCH", 1)
    assert interrupted(settings, images, 1)
    monkeypatch.setattr(batch_size, "_extrapolated", lambda opened, most: 100)
    train(settings.replace({"resume": "auto"}), images)
    content = read_checkpoint(tmp_path / "checkpoint.pth.tar")
    assert content["recipe"]["optimizer"]["batch_size"] == 4
    assert content["resolved_recipe"]["optimizer"]["lr"] == pytest.approx(0.08 * 4 / 4096)
    (parameters,) = records(tmp_path, "parameters")
    assert parameters["data"]["recipe"]["optimizer"]["batch_size"] == 4


def test_an_epoch_keeps_ten_batches(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "_extrapolated", lambda opened, most: 1000)
    count = sum(1 for _ in (images / "train").glob("*/*"))
    found = fitting_batch_size(quick_recipe(tmp_path, batch_size="auto"), images, ONE)
    assert found <= max(2, count // 10) < 2 * found


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 2000),
        ({"memory.max": "max", "memory.current": "5"}, 2000),
        ({"memory.max": "1024000", "memory.current": "24000"}, 1000),
        ({"memory/memory.limit_in_bytes": "600000", "memory/memory.usage_in_bytes": "88000"}, 512),
    ],
)
def test_the_control_group_s_limit_counts(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 2000 kB\n")
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert available_memory(tmp_path) // 1000 in (expected, expected * 1024 // 1000)


def test_the_machine_has_memory() -> None:
    assert 2**20 < available_memory() < 2**50
