"""Runs and commands on a disk that fills up at each kind of write."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.cli import main
from effnet.data import imagenet
from effnet.data.imagenet import prepare_imagenet
from effnet.data.pack import PackSettings, pack
from effnet.data.packed_index import INDEX, RECORDS
from effnet.inference.evaluate import evaluate
from effnet.quantization.run import quantize
from effnet.runtime.disk import DiskError
from effnet.runtime.errors import UserError
from effnet.runtime.lines import LineFile
from effnet.runtime.temporary import temporary_path
from effnet.training.checkpoint import read_checkpoint
from effnet.training.run import train
from tests.runs import quick_recipe, records
from tests.small_disk import SmallDisk, before_writing, left_behind, small_disk

LATEST, BEST = "checkpoint.pth.tar", "model_best.pth.tar"
SETTINGS: dict[str, Any] = {"epochs": 3, "use_ema": 0.9, "gather_checkpoints": -1, "mixup": 0.2}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The last checkpoint of a run that nothing has interrupted."""
    workspace = tmp_path_factory.mktemp("whole")
    train(quick_recipe(workspace, **SETTINGS), images)
    return dict(read_checkpoint(workspace / LATEST))


@pytest.fixture
def disk(tmp_path: Path) -> Any:
    with small_disk(tmp_path / "disk", 700) as made:
        yield made


def assert_same(found: object, expected: object, where: str = "") -> None:
    """Compare nested values, tensors bit by bit; but for the paths and times that a run is described by."""
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor), where
        assert torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert isinstance(found, dict), where
        assert found.keys() == expected.keys(), where
        for name in expected.keys() - {"recipe", "resolved_recipe", "log", "digest"}:
            if name.endswith(("_ips", "_time", "peak_memory")) or "latency" in name:
                continue
            assert_same(found[name], expected[name], f"{where}.{name}")
    else:
        assert found == expected, where


@pytest.mark.parametrize(("name", "time"), [(LATEST, 2), (BEST, 1), ("checkpoint_0001.pth.tar", 1)])
def test_a_run_whose_disk_fills_up_is_finished_by_the_next(
    disk: SmallDisk,
    images: Path,
    whole: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    time: int,
) -> None:
    workspace = disk.root / "run"
    with monkeypatch.context() as patch:
        written = before_writing(patch, name, disk.fill, time=time)
        with pytest.raises(DiskError) as caught:
            train(quick_recipe(workspace, **SETTINGS), images)
    assert len(written) == time
    message = str(caught.value)
    # Files that are written together are named together.
    assert str(workspace / name) in message.partition(": can't be written (")[0].split(", ")
    assert message.isprintable()
    assert left_behind(workspace) == []
    if name == BEST:  # written together with the first checkpoint
        assert not (workspace / LATEST).exists()
    else:
        assert read_checkpoint(workspace / LATEST)["epoch"] >= 1
    disk.free()
    train(quick_recipe(workspace, **SETTINGS, resume="auto"), images)
    assert_same(dict(read_checkpoint(workspace / LATEST)), whole)
    assert left_behind(workspace) == []
    assert {record["epoch"] for record in records(workspace, "epoch")} == {0, 1, 2}  # no line is torn


def test_a_log_whose_disk_is_full_does_not_end_the_run(
    tmp_path: Path, disk: SmallDisk, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines are written when there is space again; if there never is, the run ends with a line, but complete."""
    disk.needs_mount()
    lines = 0
    write, frees = LineFile.write, True

    def write_or_fill(self: LineFile, line: str) -> None:
        nonlocal lines
        lines += 1
        if lines == 3:
            disk.fill()
        if lines == 6 and frees:
            disk.free()
        # Some lines fit into the end of the last page that the file has.
        write(self, line if frees else " " * 8192 + line)

    monkeypatch.setattr(LineFile, "write", write_or_fill)
    settings = {"epochs": 2, "training_only": True}
    for workspace in (tmp_path / "a", tmp_path / "b"):  # of which the log alone lies on the small disk
        workspace.mkdir()
        (workspace / "report.json").symlink_to(disk.root / "report.json")
    train(quick_recipe(tmp_path / "a", **settings), images)
    assert len([*map(json.loads, (disk.root / "report.json").read_text().splitlines())]) == lines
    lines, frees = 0, False
    with pytest.raises(
        DiskError, match=r"report\.json: can't be written \(No space.* its last \d+ lines are lost$"
    ):
        train(quick_recipe(tmp_path / "b", **settings), images)
    assert read_checkpoint(tmp_path / "b" / LATEST)["epoch"] == 2


def test_a_write_is_tried_again(
    disk: SmallDisk, images: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before_writing(monkeypatch, LATEST, disk.fill)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        disk.free()

    monkeypatch.setattr("effnet.runtime.disk.retrying.__kwdefaults__", {"wait": wait})
    train(quick_recipe(disk.root / "run", epochs=1, training_only=True, write_retry=5.0), images)
    assert waited == [5]
    assert "next attempt in 5 s" in caplog.text
    assert read_checkpoint(disk.root / "run" / LATEST)["epoch"] == 1


def test_the_places_are_tried_before_the_first_epoch(tmp_path: Path, images: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "run" / "taken").mkdir(parents=True)
    for settings, name in (
        ({"checkpoint_filename": "taken"}, "taken"),
        ({"report_file": "taken"}, "taken"),
        ({"evaluate": True, "per_class": str(tmp_path / "folder")}, "folder"),
        ({"evaluate": True, "confusion": str(tmp_path / "absent" / "m.csv")}, r"m\.csv"),
    ):
        recipe = quick_recipe(tmp_path / "run", **settings)
        work = evaluate if recipe.run.evaluate else train
        with pytest.raises(DiskError, match=rf"{name}: can't be written"):
            work(recipe, images)
    dead = temporary_path(tmp_path / "run" / "c.pth")
    # Of a process of another time, whose number this one has got.
    dead = dead.with_name(dead.name.replace(f"-{os.getpid()}-", f"-{os.getpid()}-1"))
    dead.write_bytes(b"half a checkpoint")
    train(quick_recipe(tmp_path / "run", epochs=1, checkpoint_filename="c.pth"), images)
    assert not dead.exists()
    assert read_checkpoint(tmp_path / "run" / "c.pth")["epoch"] == 1


def test_a_checkpoint_that_does_not_fit_is_refused_before_the_first_epoch(
    disk: SmallDisk, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 2_000_000}))
    with pytest.raises(DiskError, match=r"a checkpoint needs 0\.0\d\d GB, but only 0\.002 GB are free"):
        train(quick_recipe(disk.root / "run", epochs=1), images)
    assert records(disk.root / "run", "iteration") == []


def test_quantize(disk: SmallDisk, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"arch": "efficientnet-quant-b0", "epochs": 0, "from_scratch": True, "calib_batches": 1}
    recipe = quick_recipe(disk.root / "run", **settings)
    with monkeypatch.context() as patch:
        before_writing(patch, BEST, disk.fill)
        with pytest.raises(UserError, match=r"model_best\.pth\.tar.*: can't be written"):
            quantize(recipe, images)
    assert left_behind(disk.root) == []


def test_an_interrupted_packing_is_finished_with_the_same_bytes(
    tmp_path: Path, disk: SmallDisk, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PackSettings(size=32, quality=None, images_per_shard=12)
    pack(images, tmp_path / "whole", settings, workers=0)
    for workers, name, time in ((0, "000001.tar", 1), (2, "000001.tar", 1), (0, RECORDS, 1), (0, INDEX, 2)):
        out = disk.root / f"{workers}-{name}"
        with monkeypatch.context() as patch:
            before_writing(patch, name, disk.fill, time=time)
            disk.LARGEST = 100
            with pytest.raises(DiskError, match=r": can't be written \(") as caught:
                pack(images, out, settings, workers=workers)
        assert str(caught.value).isprintable()
        assert set(left_behind(out)) <= {".packing"}
        assert not (out / "train" / "index.json").exists()
        disk.free()
        pack(images, out, settings, workers=workers)
        assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("copies", [2, 5, 8])
def test_an_interrupted_unpacking_is_finished(
    tmp_path: Path, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, copies: int
) -> None:
    """The disk fills up in the first class, in the second, and in the validation images."""
    names = [f"{number}.JPEG" for number in range(3)]
    image = bytes(300_000)
    train_tar, val_tar = tmp_path / "train.tar", tmp_path / "val.tar"
    of_a_class = tar_of(dict.fromkeys(names, image))
    train_tar.write_bytes(tar_of({"a.tar": of_a_class, "b.tar": of_a_class}))
    val_tar.write_bytes(tar_of(dict.fromkeys(names, image)))
    copy, done = imagenet._copy, 0

    def copy_or_fill(*arguments: Any) -> None:
        nonlocal done
        done += 1
        if done == copies:
            disk.fill()
        copy(*arguments)

    monkeypatch.setattr(imagenet, "_copy", copy_or_fill)
    out = disk.root / "out"
    with pytest.raises(DiskError, match=r"can't be written \((No space left on device|File too large)\); "):
        prepare_imagenet(train_tar, val_tar, out, ["a", "b", "a"])
    assert set(left_behind(out)) <= {".val.unfinished"}  # whole images, which the next run takes over
    disk.free()
    prepare_imagenet(train_tar, val_tar, out, ["a", "b", "a"])
    expected = {f"train/{folder}/{name}" for folder in "ab" for name in names}
    expected |= {"val/a/0.JPEG", "val/b/1.JPEG", "val/a/2.JPEG"}
    assert contents(out) == dict.fromkeys(expected, image)


def tar_of(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return written.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


COMMANDS: dict[str, Callable[[Path, Path, Path], list[str]]] = {
    "train": lambda out, images, weights: [
        *("train", str(images), "--workspace", str(out / "run"), "--image-size", "32", "-j", "0")
    ],
    "quantize": lambda out, images, weights: [
        *("quantize", str(images), "--workspace", str(out / "run"), "--from-scratch", "--epochs", "0"),
        *("--arch", "efficientnet-quant-b0", "--image-size", "32", "-j", "0"),
    ],
    "evaluate": lambda out, images, weights: [
        *("evaluate", str(images), str(weights), "-j", "0", "--workspace", str(weights.parent)),
        *("--per-class", str(out / "c.csv"), "--device", "cpu"),
    ],
    "evaluate: confusion": lambda out, images, weights: [
        *("evaluate", str(images), str(weights), "-j", "0", "--workspace", str(weights.parent)),
        *("--confusion", str(out / "c.png"), "--device", "cpu"),
    ],
    "evaluate: reliability": lambda out, images, weights: [
        *("evaluate", str(images), str(weights), "-j", "0", "--workspace", str(weights.parent)),
        *("--reliability", str(out / "c.png"), "--device", "cpu"),
    ],
    "export weights": lambda out, images, weights: [
        *("export", "weights", "--checkpoint-path", str(weights), "--weight-path", str(out / "w.safetensors"))
    ],
    **{
        f"export {form}": lambda out, images, weights, form=form: [  # type: ignore[misc]
            *("export", form, "--pretrained-from-file", str(weights), "--output", str(out / "m.xml"))
        ]
        for form in ("onnx", "openvino", "tensorrt")
    },
    "pack": lambda out, images, weights: ["prepare", "pack", str(images), str(out / "p"), "-j", "0"],
    "sample": lambda out, images, weights: ["prepare", "sample", str(out / "s")],
}


@pytest.fixture(scope="module")
def weights(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("weights")
    train(quick_recipe(workspace, epochs=1, training_only=True), images)
    return workspace / LATEST


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_writes(
    disk: SmallDisk, images: Path, weights: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    disk.needs_mount()
    disk.fill()
    assert main(COMMANDS[command](disk.root, images, weights)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("effnet: error: ")
    assert str(disk.root) in error
    assert "No space left on device" in error or "GB are free" in error
    assert "free some space" in error
    assert set(left_behind(disk.root)) <= {".packing"}


def test_a_full_cache_ends_no_run(
    disk: SmallDisk, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.needs_mount()
    monkeypatch.setenv("EFFNET_HOME", str(disk.root / "cache"))
    disk.fill()
    train(quick_recipe(tmp_path / "run", epochs=1), images)
    shutil.rmtree(disk.root / "cache", ignore_errors=True)
    disk.remount("ro")
    train(quick_recipe(tmp_path / "run", epochs=1), images)
