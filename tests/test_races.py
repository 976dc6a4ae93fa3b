"""Two processes that write the same output at once, and one that is killed while it does.

EFFNET_RACES sets the number of pairs and of kills for each kind of output.
"""

import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from effnet.training.checkpoint import read_checkpoint
from tests.runs import records, write_images
from tests.small_disk import left_behind
from tests.weights.https_server import Publisher, Served, serve

RACES = int(os.environ.get("EFFNET_RACES", "3"))
CLASSES, IN_CLASS, VAL = [f"n{number:08d}" for number in range(4)], 100, 60
BODY = random.Random(0).randbytes(3_000_000)

WORKER = """
import contextlib, json, sys
from pathlib import Path
import effnet.data.imagenet, effnet.data.pack, effnet.data.sample, effnet.training.run
from effnet.cli import main
from effnet.weights.download import download
print("ready", flush=True)
for line in sys.stdin:
    with contextlib.redirect_stdout(sys.stderr):
        what, *arguments = json.loads(line)
        code = main(arguments) if what == "effnet" else int(not download(*arguments[:1], Path(arguments[1])))
    print(code, flush=True)
"""
Output = tuple[Callable[[Path], list[str]], dict[str, bytes]]
"""the command for a folder, as the worker takes it, and the content that the folder is to have"""


class Worker:
    """A process that has imported everything, and starts at a word."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", WORKER], stdin=pipe, stdout=pipe, text=True)
        assert self.answer() == "ready"

    def start(self, command: list[str]) -> None:
        stdin: IO[str] | None = self.process.stdin
        assert stdin is not None
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small archives in ImageNet's form, and a folder of images."""
    root = tmp_path_factory.mktemp("inputs")
    with tarfile.open(root / "train.tar", "w") as train:
        for name in CLASSES:
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as images:
                for number in range(IN_CLASS):
                    add(images, f"{name}_{number}.JPEG", content(f"{name}_{number}"))
            add(train, f"{name}.tar", inner.getvalue())
    with tarfile.open(root / "val.tar", "w") as val:
        for number in range(VAL):
            add(val, f"val_{number:04d}.JPEG", content(f"val_{number}"))
    (root / "classes.txt").write_text("\n".join(CLASSES[number % 4] for number in range(VAL)))
    write_images(root / "images" / "train", dict.fromkeys("abc", 40))
    write_images(root / "images" / "val", dict.fromkeys("abc", 20))
    return root


def content(name: str) -> bytes:
    return name.encode() * 300


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    certificate = tmp_path_factory.mktemp("authority") / "authority.pem"
    with serve(certificate) as serving, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            patch.delenv(name, raising=False)
        serving.files["w.pth"] = Served(BODY)
        yield serving


@pytest.fixture(scope="module")
def workers(publisher: Publisher) -> Iterator[tuple[Worker, Worker]]:
    pair = Worker(), Worker()
    yield pair
    for worker in pair:
        worker.kill()


@pytest.fixture(scope="module", params=["imagenet", "pack", "sample", "download"])
def output(
    request: pytest.FixtureRequest, inputs: Path, publisher: Publisher, workers: tuple[Worker, Worker]
) -> Output:
    """A kind of output, with what one process alone writes."""
    if request.param == "sample":
        pytest.importorskip("sklearn")
    tars = [str(inputs / name) for name in ("train.tar", "val.tar")]
    commands: dict[str, Callable[[Path], list[str]]] = {
        "imagenet": lambda out: [
            *("effnet", "prepare", "imagenet", *tars, str(out), "--val-classes", str(inputs / "classes.txt"))
        ],
        "pack": lambda out: [
            *("effnet", "prepare", "pack", str(inputs / "images"), str(out), "--size", "32", "-j", "0")
        ],
        "sample": lambda out: ["effnet", "prepare", "sample", str(out)],
        "download": lambda out: ["download", publisher.url("w.pth"), str(out / "w.pth")],
    }
    command, alone = commands[request.param], inputs / f"{request.param}-alone"
    workers[0].start(command(alone))
    assert workers[0].answer() == "0"
    if request.param == "imagenet":  # known without the code under test
        assert len(contents(alone)) == len(CLASSES) * IN_CLASS + VAL
        assert (alone / "train" / CLASSES[1] / f"{CLASSES[1]}_7.JPEG").read_bytes() == content(
            f"{CLASSES[1]}_7"
        )
    if request.param == "download":
        assert (alone / "w.pth").read_bytes() == BODY
    return command, contents(alone)


def test_two_at_once_leave_what_one_leaves(
    output: Output, workers: tuple[Worker, Worker], tmp_path: Path
) -> None:
    command, expected = output
    for number in range(RACES):
        out = tmp_path / str(number)
        for worker in workers:
            worker.start(command(out))
        assert [worker.answer() for worker in workers] == ["0", "0"]
        assert contents(out) == expected
        assert left_behind(tmp_path) == []


TRAINING = (
    *(
        "--arch",
        "efficientnet-lite0",
        "--image-size",
        "32",
        "--resize",
        "32",
        "--batch-size",
        "8",
        "--epochs",
        "1",
    ),
    *("--workers", "0", "--device", "cpu", "--no-check-images"),
)


@pytest.mark.slow
def test_of_two_trainings_one_is_refused(
    inputs: Path, workers: tuple[Worker, Worker], tmp_path: Path
) -> None:
    for number in range(RACES):
        workspace = tmp_path / str(number)
        for seed, worker in enumerate(workers):
            flags = ["--workspace", str(workspace), "--seed", str(seed)]
            worker.start(["effnet", "train", str(inputs / "images"), *TRAINING, *flags])
        codes = [worker.answer() for worker in workers]
        assert sorted(codes) == ["0", "2"]
        seed = codes.index("0")
        for name in ("checkpoint.pth.tar", "model_best.pth.tar"):
            assert read_checkpoint(workspace / name)["recipe"]["compute"]["seed"] == seed
        (parameters,) = records(workspace, "parameters")
        assert parameters["data"]["recipe"]["compute"]["seed"] == seed
        assert [record["epoch"] for record in records(workspace, "epoch")] == [0]
        assert left_behind(tmp_path) == []


@pytest.mark.slow
def test_a_killed_one_is_finished_by_the_next(
    output: Output, workers: tuple[Worker, Worker], tmp_path: Path
) -> None:
    """The kill comes when files begin to appear, or a little later; sometimes another process is waiting."""
    command, expected = output
    for number in range(RACES):
        out, victim, waits = tmp_path / str(number), Worker(), number % 2 == 1
        victim.start(command(out))
        deadline = time.monotonic() + 30
        while not any(path.is_file() for path in tmp_path.rglob("*")) and time.monotonic() < deadline:
            pass
        if waits:
            workers[1].start(command(out))
        time.sleep(0.02 * number)
        victim.kill()
        workers[0].start(command(out))
        assert workers[0].answer() == "0"
        if waits:
            assert workers[1].answer() == "0"
        assert contents(out) == expected
        assert left_behind(tmp_path) == []
