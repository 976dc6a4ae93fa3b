"""Weight files that lie about themselves, and metadata that no model has: refused in one line, within the limits."""

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from effnet.export.facts import METADATA_KEY
from effnet.export.facts import read_metadata as read_facts
from effnet.weights import WeightsMetadata, read_weights
from tests.limits import refused
from tests.runs import PREPROCESSING

METADATA: dict[str, Any] = {
    "model": "efficientnet-lite0",
    "preprocessing": PREPROCESSING,
    "classes": ["cat", "dog"],
    "format": 2,
}


def nested(levels: int, width: int = 1) -> list[Any]:
    value: list[Any] = ["x"]
    for _ in range(levels):
        value = [value] * width
    return value


def with_input(**changes: object) -> dict[str, Any]:
    return {**METADATA, "preprocessing": {**PREPROCESSING, **changes}}


BAD_METADATA: dict[str, object] = {
    "huge image": with_input(image_size=10**9, resize=10**9),
    "huge resize": with_input(resize=10**9),
    "crop larger than the image": with_input(image_size=64, resize=32),
    "negative image": with_input(image_size=-1),
    "image of a fraction": with_input(image_size=32.5),
    "image of truth": with_input(image_size=True),
    "image as list": with_input(image_size=[32]),
    "mean of NaN": with_input(mean=[float("nan")] * 3),
    "infinite std": with_input(std=[float("inf")] * 3),
    "tiny std": with_input(std=[1e-300] * 3),
    "mean of two": with_input(mean=[0.5, 0.5]),
    "mean as mapping": with_input(mean={"r": 1}),
    "interpolation as list": with_input(interpolation=["bilinear"]),
    "path as model": {**METADATA, "model": "../../outside"},
    "absolute path as model": {**METADATA, "model": "/tmp/outside"},
    "escape in the model": {**METADATA, "model": "a\x1b[31mb"},
    "escape in the publisher": {**METADATA, "publisher": "a\x1b]0;b\x07"},
    "new line in the source": {**METADATA, "source": "a\nb"},
    "class twice": {**METADATA, "classes": ["cat", "cat"]},
    "class without a name": {**METADATA, "classes": ["cat", ""]},
    "class of a number": {**METADATA, "classes": ["cat", 1]},
    "classes as text": {**METADATA, "classes": "cat"},
    "top-1 of NaN": {**METADATA, "top1": float("nan")},
    "top-1 as text": {**METADATA, "top1": "50"},
    "epsilon of infinity": {**METADATA, "bn_epsilon": float("inf")},
    "epsilon as list": {**METADATA, "bn_epsilon": [1]},
    "size of a list": {**METADATA, "size": [1]},
    "digest of a number": {**METADATA, "sha256": 5},
    "later version": {**METADATA, "format": 3},
    "format as text": {**METADATA, "format": "2"},
    "unknown field, huge": {**METADATA, "invented": 10**100},
    "unknown field, deep": {**METADATA, "invented": nested(40)},
    "a list": [1],
    "a text": "x",
}
BAD_JSON = {
    "deep": "[" * 100_000,
    "long integer": f'{{"model": {"9" * 5000}}}',
    "cut": json.dumps(METADATA)[:-5],
    "nothing": "",
}


@pytest.mark.parametrize("name", BAD_METADATA)
def test_metadata_in_every_file(tmp_path: Path, name: str) -> None:
    metadata = BAD_METADATA[name]
    tensors = {"a": torch.ones(1)}
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors", {"effnet": json.dumps(metadata)})
    with refused(tmp_path / "w.safetensors"):
        read_weights(tmp_path / "w.safetensors")
    with refused(tmp_path / "model.onnx"):
        read_facts({METADATA_KEY: json.dumps(metadata)}, tmp_path / "model.onnx")
    if isinstance(metadata, dict):  # anything else is another program's entry, which is left alone
        torch.save({"state_dict": tensors, "metadata": metadata}, tmp_path / "w.pth")
        with refused(tmp_path / "w.pth"):
            read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("name", BAD_JSON)
def test_metadata_that_is_no_json(tmp_path: Path, name: str) -> None:
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors", {"effnet": BAD_JSON[name]})
    with refused(tmp_path / "w.safetensors"):
        read_weights(tmp_path / "w.safetensors")
    with refused(tmp_path / "model.onnx"):
        read_facts({METADATA_KEY: BAD_JSON[name]}, tmp_path / "model.onnx")


def test_lists_that_hold_each_other_in_a_pickle(tmp_path: Path) -> None:
    metadata = {**METADATA, "invented": nested(30, width=3)}
    torch.save({"state_dict": {"a": torch.ones(1)}, "metadata": metadata}, tmp_path / "w.pth")
    with refused(tmp_path / "w.pth"):
        read_weights(tmp_path / "w.pth")


def test_names_that_people_give_their_classes_are_read() -> None:
    odd = ("a b", "ä", "[/bold]", "a\nb", "a\x1b[31m", "\udcff")
    assert WeightsMetadata.from_dict({**METADATA, "classes": list(odd)}).classes == odd


def entry(shape: list[int], start: int, stop: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


SAFETENSORS: dict[str, tuple[object, int]] = {
    "offset beyond the file": ({"a": entry([2], 0, 10**15)}, 8),
    "backwards": ({"a": entry([2], 8, 0)}, 8),
    "overlap": ({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, 12),
    "shape larger than its bytes": ({"a": entry([10**12], 0, 8)}, 8),
    "shape that overflows": ({"a": entry([2**32, 2**32], 0, 0)}, 0),
    "bytes without a tensor": ({"a": entry([1], 0, 4)}, 400),
    "unknown type": ({"a": entry([1], 0, 4, "F31")}, 4),
    "type that no weights have": ({"a": entry([2], 0, 1, "F4")}, 1),
    "complex": ({"a": entry([1], 0, 8, "C64")}, 8),
    "many tensors": ({f"a{number}": entry([0], 0, 0) for number in range(50_000)}, 0),
    "key of a megabyte": ({"a." * 500_000: entry([1], 0, 4)}, 4),
    "deep": (b"[" * 1_000_000, 0),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_that_lie(tmp_path: Path, name: str) -> None:
    content, size = SAFETENSORS[name]
    header = content if isinstance(content, bytes) else json.dumps(content).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))
    with refused(path):
        read_weights(path)


@pytest.mark.parametrize("size", [99_000_000, 10**15, 2**64 - 1])
def test_safetensors_with_a_large_header(tmp_path: Path, size: int) -> None:
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", size) + b"{")
        file.truncate(100_000_000)
    with refused(path):
        read_weights(path)


def archive(content: object) -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


@pytest.mark.parametrize("bomb", ["data.pkl", "data/0"])
def test_archives_that_unpack_to_a_thousand_times_their_size(tmp_path: Path, bomb: str) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as written:
        for name, content in archive({"a": torch.zeros(10)}).items():
            with written.open(name, "w") as file:
                for _ in range(64 if name.endswith(bomb) else 0):
                    file.write(bytes(1 << 20))
                file.write(content)
    assert path.stat().st_size < 64 << 12
    with refused(path):
        read_weights(path)


def test_a_pickle_of_many_megabytes(tmp_path: Path) -> None:
    """Of an archive it is refused by its size, of an old file by the number of its instructions."""
    pickled = b"\x80\x02" + b"}" * (3 << 20)
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as written:
        for name, content in archive({}).items():
            written.writestr(name, pickled if name.endswith("data.pkl") else content)
    (tmp_path / "old.pth").write_bytes(old_file(pickled))
    for name in ("w.pth", "old.pth"):
        with refused(tmp_path / name):
            read_weights(tmp_path / name)


def old_file(pickled: bytes) -> bytes:
    """Return a file as PyTorch wrote it before its archives, with any pickle in the place of the content."""
    sizes = {"short": 2, "int": 4, "long": 4}
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    heads = (0x1950A86A20F9469CFC6C, 1001, system)
    return b"".join(pickle.dumps(head, 2) for head in heads) + pickled


@pytest.mark.parametrize(
    "call",
    [
        b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R",
        b"c_codecs\nencode\nX\x01\0\0\0aX\x08\0\0\0punycode\x86R",
    ],
    ids=["bytearray", "encode"],
)
@pytest.mark.parametrize("form", ["archive", "old"])
def test_a_pickle_that_asks_for_memory(tmp_path: Path, call: bytes, form: str) -> None:
    pickled, path = b"\x80\x02" + call + b".", tmp_path / "w.pth"
    if form == "old":
        path.write_bytes(old_file(pickled))
    else:
        with zipfile.ZipFile(path, "w") as written:
            for name, content in archive({}).items():
                written.writestr(name, pickled if name.endswith("data.pkl") else content)
    with refused(path) as caught:
        read_weights(path)
    assert "asks for memory of any size" in str(caught.value)


def test_a_view_larger_than_its_memory(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").stat().st_size < 2000
    with refused(tmp_path / "w.pth") as caught:
        read_weights(tmp_path / "w.pth")
    assert "larger than its memory" in str(caught.value)


def test_old_files_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3.0)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert read_weights(tmp_path / "w.pth").state_dict["a"].tolist() == [0, 1, 2]
