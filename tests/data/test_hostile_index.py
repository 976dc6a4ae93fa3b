"""Packed indexes that lie: about names, ranges, classes, sizes. Each is right by its own digest, and refused."""

import hashlib
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effnet.cli import main
from effnet.data.files import LocalFiles
from effnet.data.packed import PackedImages
from effnet.data.packed_index import FORMAT, RECORD, VERSION
from tests.limits import refused

Index = dict[str, Any]
SHARD = bytes(24)


def write(folder: Path, change: Callable[[Index], object] = lambda index: None, **columns: object) -> Path:
    """Write a set of two images of two by two pixels; change its index, and columns of its records."""
    records = np.array([(0, 0, 0, 12, 2, 2, 2, 2), (0, 1, 12, 12, 2, 2, 2, 2)], RECORD)
    for name, values in columns.items():
        records[name] = values
    buffer = io.BytesIO()
    np.save(buffer, records)
    index: Index = {
        "format": FORMAT,
        "version": VERSION,
        "settings": {"size": 2, "quality": None},
        "classes": ["cat", "dog"],
        "shards": [{"name": "000000.tar", "bytes": len(SHARD), "sha256": hashlib.sha256(SHARD).hexdigest()}],
    }
    (folder / "index.npy").write_bytes(buffer.getvalue())
    (folder / "000000.tar").write_bytes(SHARD)
    finish(folder, index, change)
    return folder


def finish(folder: Path, index: Index, change: Callable[[Index], object] = lambda index: None) -> None:
    index["records_sha256"] = hashlib.sha256((folder / "index.npy").read_bytes()).hexdigest()
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


def test_an_honest_one_is_read(tmp_path: Path) -> None:
    images = PackedImages.open(LocalFiles(write(tmp_path)))
    assert [opened().decode().shape for opened in images.read([0, 1])] == [(2, 2, 3), (2, 2, 3)]


@pytest.mark.parametrize("key", ["format", "version", "settings", "classes", "shards", "records_sha256"])
def test_an_entry_that_is_absent_or_something_else(tmp_path: Path, key: str) -> None:
    others: list[Any] = [None, 5, 10**40, [1], "x", {}, [[]], {"a": 1}]
    for other in others:
        write(tmp_path, partial(dict.update, **{key: other}))
        with refused(tmp_path):
            PackedImages.open(LocalFiles(tmp_path))
    write(tmp_path, lambda index: index.pop(key))
    with refused(tmp_path):
        PackedImages.open(LocalFiles(tmp_path))


@pytest.mark.parametrize(
    "shard",
    [
        *(
            {"name": name}
            for name in ("../outside", "/etc/passwd", "a/b", "..", ".", "", "a\0b", "a\nb", 5, None)
        ),
        *({"bytes": size} for size in (-1, 10**15, 10**30, 1.5, "24", None, True, 23, 25)),
        {"sha256": None},
    ],
    ids=str,
)
def test_a_shard_that_is_none(tmp_path: Path, shard: Index) -> None:
    (tmp_path.parent / "outside").write_bytes(SHARD)
    write(tmp_path, lambda index: index["shards"][0].update(shard))
    with refused(tmp_path):
        PackedImages.open(LocalFiles(tmp_path))


@pytest.mark.parametrize(
    ("columns", "flaw"),
    [
        ({"offset": (0, 13)}, "bytes outside its shard"),
        ({"offset": (0, 2**64 - 1)}, "bytes outside its shard"),
        ({"offset": (0, 10**15)}, "bytes outside its shard"),
        ({"size": (12, 2**32 - 1)}, "bytes outside its shard"),
        ({"size": (0, 12)}, "no bytes"),
        ({"offset": (0, 6)}, "bytes of another image"),
        ({"offset": (0, 0)}, "bytes of another image"),
        ({"shard": (0, 1)}, "no shard"),
        ({"shard": (0, 2**32 - 1)}, "no shard"),
        ({"target": (0, 2)}, "no class"),
        ({"target": (0, -1)}, "no class"),
        ({"height": (2, 0)}, "no size that an image has"),
        ({"width": (2, 2**32 - 1)}, "no size that an image has"),
        ({"original_height": (2, 0)}, "no size that an image has"),
        ({"height": (2, 3)}, "another number of bytes than pixels"),
    ],
    ids=str,
)
def test_records_that_can_not_be(tmp_path: Path, columns: dict[str, object], flaw: str) -> None:
    write(tmp_path, **columns)
    with refused(tmp_path / "index.npy") as caught:
        PackedImages.open(LocalFiles(tmp_path))
    assert flaw in str(caught.value)


def npy(description: str, data: bytes = bytes(80)) -> bytes:
    header = description.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (2,)}"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10,)}"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}"),
        npy("[" * 100),
        npy("__import__('os').mkdir('ran')"),
    ],
    ids=range(7),
)
def test_records_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.npy").write_bytes(content)
    finish(tmp_path, index)
    with refused(tmp_path / "index.npy"):
        PackedImages.open(LocalFiles(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", '{"a": NaN}', "\udcff"], ids=range(4)
)
def test_an_index_that_is_no_json(tmp_path: Path, text: str) -> None:
    write(tmp_path)
    (tmp_path / "index.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with refused(tmp_path / "index.json"):
        PackedImages.open(LocalFiles(tmp_path))


def test_an_index_of_a_gigabyte(tmp_path: Path) -> None:
    write(tmp_path)
    with (tmp_path / "index.json").open("r+b") as file:
        file.truncate(1 << 30)
    with refused(tmp_path / "index.json"):
        PackedImages.open(LocalFiles(tmp_path))


def test_a_shard_that_is_cut_after_it_was_opened(tmp_path: Path) -> None:
    images = PackedImages.open(LocalFiles(write(tmp_path)))
    (tmp_path / "000000.tar").write_bytes(SHARD[:20])
    first, second = images.read([0, 1])
    assert first().decode().shape == (2, 2, 3)
    with refused(tmp_path / "000000.tar"):
        second()


def test_a_class_of_two_lines_is_named_in_one(tmp_path: Path) -> None:
    """Found by fuzzing."""
    images = PackedImages.open(
        LocalFiles(write(tmp_path, lambda index: index.update(classes=["a\nb", "dog"])))
    )
    with refused(tmp_path / "index.json"):
        images.with_classes(["dog", "cat"])


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train").mkdir()
    write(tmp_path / "train", offset=(0, 10**15))
    quick = ["--device", "cpu", "--image-size", "32", "--workspace", str(tmp_path / "run")]
    command = ["train", str(tmp_path), "--data-backend", "packed", "--training-only", "-b", "1", *quick]
    assert main(command) == 2
    assert f"{tmp_path / 'train' / 'index.npy'} is damaged: image 1" in capsys.readouterr().err
