"""Files of checkpoints: written beside the training, complete at every moment, and of one moment each."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.runtime.errors import UserError
from effnet.training.checkpoint import CheckpointFiles, previous_of, read_checkpoint
from effnet.training.copies import Copies

pytestmark = pytest.mark.usefixtures("small_networks")


def content(epoch: int, size: int = 100) -> dict[str, Any]:
    return {"epoch": epoch, "state_dict": {"weight": torch.full((size,), float(epoch))}}


def epoch_of(path: Path) -> int:
    read = read_checkpoint(path)
    assert (read["state_dict"]["weight"] == read["epoch"]).all()
    return int(read["epoch"])


@pytest.mark.parametrize(
    ("latest", "previous"),
    [
        ("checkpoint.pth.tar", "checkpoint.previous.pth.tar"),
        ("my.run.pth", "my.run.previous.pth"),
        ("latest", "latest.previous"),
    ],
)
def test_the_name_of_the_one_before(latest: str, previous: str) -> None:
    assert previous_of(Path("a.b", latest)) == Path("a.b", previous)


class Held:
    """A `torch.save` that waits until it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()
        self._save = torch.save

    def __call__(self, content: object, file: Any) -> None:
        self.begun.set()
        assert self.let_go.wait(60)
        self._save(content, file)


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    monkeypatch.setattr(torch, "save", held)
    files = CheckpointFiles(tmp_path, "c.pth", 0)
    live = content(1)
    files.save(live)
    assert held.begun.wait(60)
    live["state_dict"]["weight"].fill_(99)
    live["epoch"] = 99
    assert not files.latest.exists()

    second = threading.Thread(target=files.save, args=(content(2),))
    second.start()
    second.join(0.2)
    assert second.is_alive(), "one write at a time"
    held.let_go.set()
    second.join(60)
    files.flush()
    assert epoch_of(files.latest) == 2
    assert epoch_of(files.previous) == 1


def test_an_interrupted_wait_leaves_the_write_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    monkeypatch.setattr(torch, "save", held)
    files = CheckpointFiles(tmp_path, "c.pth", 0)
    files.save(content(1))
    writing = files._writing
    assert writing is not None
    with monkeypatch.context() as interrupted:

        def interrupt() -> None:
            raise KeyboardInterrupt

        interrupted.setattr(writing, "exception", interrupt)
        with pytest.raises(KeyboardInterrupt):
            files.save(content(2))
    held.let_go.set()
    files.save(content(3))
    files.flush()
    assert (epoch_of(files.latest), epoch_of(files.previous)) == (3, 1)


def test_best_and_gathered(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path, "c.pth", 2)
    for epoch in range(1, 5):
        files.save(content(epoch), is_best=epoch == 2, gathered=epoch != 3)
    files.flush()
    assert {path.name: epoch_of(path) for path in tmp_path.iterdir()} == {
        "c.pth": 4,
        "c.previous.pth": 3,
        "model_best.pth.tar": 2,
        "checkpoint_0001.pth.tar": 2,
        "checkpoint_0003.pth.tar": 4,
    }
    assert files.kept() == [
        tmp_path / name
        for name in ("checkpoint_0003.pth.tar", "checkpoint_0001.pth.tar", "model_best.pth.tar")
    ]


def test_damage_to_the_latest_spares_the_best(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path, "c.pth", 0)
    files.save(content(1), is_best=True)
    files.flush()
    with files.latest.open("rb+") as file:
        file.truncate(100)
    assert epoch_of(files.best) == 1


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    test_best_and_gathered(tmp_path)


def test_a_damaged_latest_does_not_replace_the_one_before(tmp_path: Path) -> None:
    first = CheckpointFiles(tmp_path, "c.pth", 0)
    for epoch in (1, 2):
        first.save(content(epoch))
    first.flush()
    first.latest.write_bytes(b"damaged")
    resumed = CheckpointFiles(tmp_path, "c.pth", 0)
    resumed.save(content(2))
    resumed.flush()
    assert (epoch_of(resumed.latest), epoch_of(resumed.previous)) == (2, 1)
    later = CheckpointFiles(tmp_path, "c.pth", 0)
    later.save(content(3))
    later.flush()
    assert (epoch_of(later.latest), epoch_of(later.previous)) == (3, 2)


class FullDisk:
    """A file's `write` on a disk with no space left."""

    def write(self, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("at", ["flush", "save"])
def test_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    files = CheckpointFiles(tmp_path, "c.pth", 0)
    files.save(content(1))
    files.flush()
    save = torch.save
    with monkeypatch.context() as full:
        full.setattr(torch, "save", lambda content, file: save(content, FullDisk()))
        files.save(content(2), is_best=True)
        with pytest.raises(UserError, match=r"c\.pth: can't be written \(No space left on device\)"):
            files.flush() if at == "flush" else files.save(content(3))
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]
    assert epoch_of(files.latest) == 1
    files.save(content(4))
    files.flush()
    assert (epoch_of(files.latest), epoch_of(files.previous)) == (4, 1)


def test_copies_are_of_their_own_and_in_the_same_memory(tmp_path: Path) -> None:
    flat = torch.arange(100_000.0)
    images = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    live = {
        "views": [flat[:10], flat[10:40].view(5, 6)],
        "images": images,
        "none": torch.zeros(0, dtype=torch.int64),
        "half": (torch.ones(3, dtype=torch.bfloat16), torch.tensor(True)),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "plain": {"text": "x", "number": None},
    }
    copies = Copies()
    copied = copies.take(live).wait()
    flat.zero_()
    assert torch.equal(copied["views"][1], torch.arange(10.0, 40.0).view(5, 6))
    assert copied["images"].stride() == images.stride()
    torch.save(copied, tmp_path / "c.pth")
    assert (tmp_path / "c.pth").stat().st_size < 10_000, "views of a flat tensor are not saved as all of it"
    read = torch.load(tmp_path / "c.pth", weights_only=True)
    assert read["half"][0].dtype == torch.bfloat16
    assert read["none"].shape == (0,)
    assert read["plain"] == live["plain"]
    assert torch.equal(read["images"], images)

    again = copies.take(live).wait()
    assert again["images"].data_ptr() == copied["images"].data_ptr()
    smaller = copies.take({"images": images}).wait()
    assert smaller["images"].data_ptr() == copied["views"][0].data_ptr()


# Forks a process that saves without end, reads what it writes, kills it at some moment, and reads once more.
KILLED = """
    import json, os, random, signal, sys, time
    from pathlib import Path
    import torch
    from effnet.runtime.errors import UserError
    from effnet.training.checkpoint import CheckpointFiles, read_checkpoint

    def save_without_end(workspace):
        torch.set_num_threads(1)
        files = CheckpointFiles(workspace, "c.pth", -1)
        live = [torch.zeros(20_000) for _ in range(20)]
        epoch = 0
        while True:
            epoch += 1
            for tensor in live:
                tensor += 1
            files.save({"epoch": epoch, "state_dict": {str(i): t for i, t in enumerate(live)}}, is_best=epoch % 2 == 0)

    def read(path):
        content = read_checkpoint(path)
        assert all((tensor == content["epoch"]).all() for tensor in content["state_dict"].values()), "mixed"
        return content["epoch"]

    for number in range(10):
        workspace = Path(sys.argv[1], str(number))
        workspace.mkdir()
        files = CheckpointFiles(workspace, "c.pth", 0)
        child = os.fork()
        if child == 0:
            save_without_end(workspace)
        while not files.latest.exists():
            time.sleep(0.001)
        end = time.monotonic() + random.Random(number).uniform(0.0, 0.3)
        reads = 0
        while reads == 0 or time.monotonic() < end:
            read(files.latest)
            reads += 1
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        named = {path.name: read(path) for path in workspace.iterdir() if not path.name.startswith(".")}
        print(json.dumps({"reads": reads, "named": named}), flush=True)
"""


def test_killed_at_any_moment(tmp_path: Path) -> None:
    script = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)]
    result = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    kills = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(kills) == 10
    for kill in kills:
        named = kill["named"]
        assert named["c.pth"] - named.get("c.previous.pth", named["c.pth"]) in (0, 1)
    assert sum(kill["named"]["c.pth"] for kill in kills) > 12, "saves overlapped the kills"
