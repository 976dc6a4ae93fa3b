"""Weight files: what is read back, what is refused, and that nothing in them is run."""

import os
import pickle
import stat
from pathlib import Path

import pytest
import torch
from torch import Tensor

from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata, list_weights, read_weights, save_weights
from effnet.weights.files import read_torch_file

STATE_DICT = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(4)}
METADATA = list_weights("efficientnet-lite0")[0]


def assert_same(found: dict[str, Tensor]) -> None:
    assert found.keys() == STATE_DICT.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in STATE_DICT.items())


@pytest.mark.parametrize("metadata", [None, METADATA])
@pytest.mark.parametrize("name", ["w.pth", "w.pth.tar", "w.safetensors"])
def test_what_is_written_is_read(tmp_path: Path, name: str, metadata: WeightsMetadata | None) -> None:
    save_weights(tmp_path / name, STATE_DICT, metadata)
    found = read_weights(tmp_path / name)
    assert_same(found.state_dict)
    assert found.metadata == metadata
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_any_memory_layout_is_written(tmp_path: Path) -> None:
    tensor = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    save_weights(tmp_path / "w.safetensors", {"t": tensor.requires_grad_()})
    assert torch.equal(read_weights(tmp_path / "w.safetensors").state_dict["t"], tensor)


def test_written_files_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_weights(tmp_path / "w.pth", STATE_DICT)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "w.pth").stat().st_mode) == 0o640


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    save_weights(path, STATE_DICT)

    def full_disk(content: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(UserError, match=r"w\.pth: can't be written .*No space left"):
        save_weights(path, {})
    assert_same(read_weights(path).state_dict)
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.pth"]


def test_where_it_can_not_be_written(tmp_path: Path) -> None:
    for name in ("absent/w.pth", "absent/w.safetensors"):
        with pytest.raises(UserError, match="can't be written"):
            save_weights(tmp_path / name, STATE_DICT)
    with pytest.raises(UserError, match=r"written as \.pth"):
        save_weights(tmp_path / "w.onnx", STATE_DICT)


def test_prefixes_of_wrappers_are_removed(tmp_path: Path) -> None:
    wrapped = {f"_orig_mod.module.{key}": tensor for key, tensor in STATE_DICT.items()}
    torch.save(wrapped, tmp_path / "w.pth")
    assert_same(read_weights(tmp_path / "w.pth").state_dict)


def test_the_weights_in_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c.pth.tar"
    averaged = {key: tensor + 1 for key, tensor in STATE_DICT.items()}
    checkpoint = {"epoch": 1, "best_prec1": 0.5, "optimizer": {"param_groups": [{"lr": 0.1}]}}
    torch.save({**checkpoint, "state_dict": STATE_DICT, "state_dict_ema": averaged}, path)
    assert_same(read_weights(path).state_dict)
    assert torch.equal(read_weights(path, ema=True).state_dict["a.count"], torch.tensor(5))

    torch.save({**checkpoint, "state_dict": STATE_DICT, "metadata": METADATA.to_dict()}, path)
    assert read_weights(path).metadata == METADATA
    with pytest.raises(UserError, match=r"c\.pth\.tar: holds no averaged weights"):
        read_weights(path, ema=True)


class Creates:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("form", ["torch", "bare pickle", "checkpoint"])
def test_no_pickle_is_run(tmp_path: Path, form: str, protocol: int) -> None:
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    payload = Creates(trace)
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(payload, protocol=protocol))
    else:
        content = {"state_dict": STATE_DICT, "extra": payload} if form == "checkpoint" else payload
        torch.save(content, path, pickle_protocol=protocol)
    for read in (read_weights, read_torch_file):
        with pytest.raises(UserError) as caught:
            read(path)
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        if protocol == 2:
            assert "asks for posix.mkdir and no pickle's code is run" in message
    assert not trace.exists()
    torch.load(path, weights_only=False) if form != "bare pickle" else pickle.loads(path.read_bytes())
    assert trace.exists(), "the payload is meant to work where pickles are run"


def truncated_zip(path: Path) -> None:
    torch.save({"a": torch.zeros(10_000)}, path)
    path.write_bytes(path.read_bytes()[:20_000])


def truncated_old_format(path: Path) -> None:
    torch.save({"a": torch.zeros(10_000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:20_000])


def truncated_safetensors(path: Path) -> None:
    save_weights(path, {"a": torch.zeros(10_000)})
    path.write_bytes(path.read_bytes()[:20_000])


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)


DAMAGED = {
    "text.pth": lambda path: path.write_text("not weights, but a few words\n" * 9),
    "page.pth": lambda path: path.write_text("<html><body>404</body></html>"),
    "empty.pth": lambda path: path.touch(),
    "zip.pth": truncated_zip,
    "old.pth": truncated_old_format,
    "script.pth": torchscript,
    "text.safetensors": lambda path: path.write_text("not weights, but a few words\n" * 9),
    "empty.safetensors": lambda path: path.touch(),
    "cut.safetensors": truncated_safetensors,
}


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize(("name", "write"), DAMAGED.items(), ids=DAMAGED)
def test_damaged_files(tmp_path: Path, name: str, write) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / name)
    with pytest.raises(UserError, match=r": damaged, cut short, or not a .* file; fetch it again") as caught:
        read_weights(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "holds a Tensor"),
        ({}, "holds no weights"),
        ({"state_dict": {}}, "holds no weights"),
        ({"state_dict_ema": STATE_DICT}, "only averaged weights"),
        ({"a": 1}, "'a' is a int, not a tensor"),
        ({"state_dict": STATE_DICT, "metadata": {"model": "x"}}, "preprocessing is missing"),
    ],
)
def test_files_that_hold_something_else(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match=rf"w\.pth: .*{message}"):
        read_weights(tmp_path / "w.pth")


def test_no_file(tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        with pytest.raises(UserError, match=rf"{name}: no such file"):
            read_weights(tmp_path / name)
    with pytest.raises(UserError, match="not a file"):
        read_weights(tmp_path)
