"""Damage to a checkpoint's file: of flipped bits none loads as something else."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from effnet.runtime.errors import UserError
from effnet.weights import read_weights
from effnet.weights.digest import with_digest
from effnet.weights.files import read_torch_file

CONTENT = {
    "epoch": 3,
    "state_dict": {
        **{f"layers.{index}.weight": torch.randn(16, 8) for index in range(15)},
        "count": torch.tensor(7),
        "empty": torch.zeros(0),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "channels_last": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
    },
    "progress": {"best": None, "value": 1.5, "is_ema": True, "steps": [1, 2], "pair": ("a", 0.1)},
}


def is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        same_keys = isinstance(other, dict) and list(one) == list(other)
        return same_keys and all(is_same(one[key], other[key]) for key in one)
    return type(one) is type(other) and repr(one) == repr(other)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(with_digest(CONTENT), tmp_path / "c.pth.tar")
    return tmp_path / "c.pth.tar"


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_none_of_flipped_bits_loads_as_something_else(file: Path) -> None:
    written, original = read_torch_file(file), file.read_bytes()
    noticed: list[str] = []
    for bit in random.Random(14).sample(range(8 * len(original)), 200):
        file.write_bytes(original)
        flip(file, bit)
        try:
            found = read_torch_file(file)
        except UserError as error:
            noticed.append(str(error))
        else:
            assert is_same(found, written), bit
    # The others hit what fills the file up to the next tensor, or a second copy of a name.
    assert len(noticed) > 60
    assert all(message.startswith(f"{file}: damaged") for message in noticed)


@pytest.mark.parametrize("key", ["digest", "digest_algorithm"])
def test_a_lost_digest_is_damage(file: Path, key: str) -> None:
    content = torch.load(file, weights_only=True)
    content[key[:-1]] = content.pop(key)
    torch.save(content, file)
    with pytest.raises(UserError, match="its content differs from its digest"):
        read_torch_file(file)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(epoch=4),
        lambda content: content["progress"].update(best=False),
        lambda content: content["progress"].update(pair=["a", 0.1]),
        lambda content: content["state_dict"].pop("count"),
        lambda content: content["state_dict"].update(count=torch.tensor(7.0)),
        lambda content: content["state_dict"].update(empty=torch.zeros(0, 1)),
        lambda content: content["state_dict"]["channels_last"][0, 0, 0].neg_(),
    ],
)
def test_every_value_counts(file: Path, change: Any) -> None:
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)
    with pytest.raises(UserError, match=r"c\.pth\.tar: damaged, its content differs from its digest"):
        read_weights(file)


def test_the_memory_layout_does_not_count(file: Path) -> None:
    content = torch.load(file, weights_only=True)
    content["state_dict"]["channels_last"] = content["state_dict"]["channels_last"].contiguous()
    torch.save(content, file)
    assert torch.equal(read_weights(file).state_dict["channels_last"], CONTENT["state_dict"]["channels_last"])


def cyclic() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


HOSTILE = {
    "cycle": cyclic,
    "20^12 entries": lambda: _nested(12),
    "views of one storage": lambda: list(torch.zeros(1 << 20).expand(1000, -1)),
    "expanded": lambda: torch.zeros(1).expand(1 << 40),
    "sparse": lambda: torch.zeros(3, 3).to_sparse(),
}


def _nested(depth: int) -> list[Any]:
    entries: list[Any] = [0]
    for _ in range(depth):
        entries = [entries] * 20
    return entries


@pytest.mark.parametrize("name", HOSTILE)
def test_a_small_file_can_not_ask_for_much(tmp_path: Path, name: str) -> None:
    marks = {"digest": "0" * 64, "digest_algorithm": "sha256"}
    torch.save({"state_dict": HOSTILE[name](), **marks}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"w\.pth: damaged"):
        read_torch_file(tmp_path / "w.pth")


def test_files_without_a_digest_load(tmp_path: Path) -> None:
    for name, options in {"new.pth": {}, "old.pth": {"_use_new_zipfile_serialization": False}}.items():
        torch.save(CONTENT, tmp_path / name, **options)
        assert is_same(read_torch_file(tmp_path / name), CONTENT)


def test_what_can_not_be_read_back_is_not_written() -> None:
    with pytest.raises(TypeError, match="can.t hold a"):
        with_digest({"workspace": Path("x")})
