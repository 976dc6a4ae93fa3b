"""Class and file names that a terminal would obey, that are markup, or that are not UTF-8, through whole commands."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.cli import main
from effnet.data.folder import list_images
from effnet.data.packed import packed_classes
from effnet.weights import read_weights
from tests.runs import records

pytestmark = pytest.mark.usefixtures("small_networks")

CLASSES = [
    "\x1b[31mred",
    "\x1b]8;;x\x1b\\l\x07",
    "\u202egpj",
    "\x9b31m",
    "-x",
    ":smile:",
    "=1+1",
    "Con",
    "[",
    "con",
    "img[bold]q",
    "new\nline\ttab\r",
    "quo\"te,s'",
    "$x$",
    "x" * 255,
    os.fsdecode(b"\xff\xfe"),
]
QUICK = ["-a", "efficientnet-lite0", "--image-size", "32", "-b", "11", "--device", "cpu", "--workers", "0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class for each name, with an image called ``nope].jpg``, one called as the class, and a broken one."""
    root = tmp_path_factory.mktemp("named")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in CLASSES:
            folder = root / split / name
            folder.mkdir(parents=True)
            for image in ("nope].jpg", f"{name[:250]}.jpg"):
                pixels = random.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                with open(folder / image, "wb") as file:
                    Image.fromarray(pixels).save(file, "JPEG")
        (root / split / CLASSES[-1] / os.fsdecode(b"\xfe[nope]\x1b.jpg")).write_bytes(b"broken")
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a training on them."""
    workspace = tmp_path_factory.mktemp("run")
    flags = ["--epochs", "1", "--on-bad-image", "skip", "--workspace", str(workspace)]
    assert main(["train", str(data), *QUICK, *flags]) == 0
    return workspace


@pytest.fixture
def checked(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run_it(*arguments: str, code: int = 0) -> str:
        """Run a command; return what it printed, in which there is nothing but printable text."""
        capfd.readouterr()
        assert main(list(arguments)) == code
        captured = capfd.readouterr()
        for line in (captured.out + captured.err).split("\n"):
            assert line.replace("\t", "").isprintable(), line
        assert "Traceback" not in captured.err
        return captured.out + captured.err

    return run_it


def test_a_training_ends_and_its_files_hold_the_names(
    data: Path, run: Path, tmp_path: Path, checked: Callable[..., str]
) -> None:
    assert read_weights(run / "checkpoint.pth.tar").metadata.classes == tuple(sorted(CLASSES))
    left_out = {name for record in records(run, "event") for name in record["data"]["images"]}
    assert left_out == {
        os.fsdecode(os.path.join(os.fsencode(data), split, b"\xff\xfe", b"\xfe[nope]\x1b.jpg"))
        for split in (b"train", b"val")
    }
    flags = ["--on-bad-image", "skip", "--workspace"]
    printed = checked("train", str(data), *QUICK, "--epochs", "1", *flags, str(tmp_path))
    broken = r"train/\xff\xfe/\xfe[nope]\x1b.jpg: can't be decoded"
    assert broken in printed
    resumed = checked("train", str(data), *QUICK, "--epochs", "2", *flags, str(run), "--resume", "auto")
    assert broken not in resumed, "the log that goes on lists it already"
    assert len(records(run, "epoch")) == 2


def test_the_broken_image_is_named_on_one_line(
    data: Path, tmp_path: Path, checked: Callable[..., str]
) -> None:
    printed = checked("train", str(data), *QUICK, "--workspace", str(tmp_path), code=2)
    (line,) = [line for line in printed.splitlines() if "error:" in line]
    assert r"train/\xff\xfe/\xfe[nope]\x1b.jpg: can't be decoded: not an image" in line


def test_evaluation_writes_them(data: Path, run: Path, tmp_path: Path, checked: Callable[..., str]) -> None:
    files = [tmp_path / name for name in ("per_class.csv", "confusion.csv", "confusion.png")]
    command = [
        "train",
        str(data),
        *QUICK,
        "--evaluate",
        "--on-bad-image",
        "skip",
        "--workspace",
        str(tmp_path),
    ]
    command += ["--pretrained-from-file", str(run / "model_best.pth.tar"), "--json"]
    checked(*command, "--per-class", str(files[0]), "--confusion", str(files[1]))
    for path in files[:2]:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            assert [row[0] for row in csv.reader(file)][1:] == sorted(CLASSES)
    pytest.importorskip("matplotlib")
    checked(*command, "--confusion", str(files[2]))
    assert files[2].stat().st_size


def test_classification_shows_and_restores_them(data: Path, run: Path, checked: Callable[..., str]) -> None:
    command = ["classify", "--cpu", "--pretrained-from-file", str(run / "model_best.pth.tar"), "--topk", "16"]
    printed = checked(*command, str(data / "val"), code=2)
    for shown in (
        r"\x1b[31mred",
        "img[bold]q",
        "[/nope].jpg",
        r"new\nline\ttab\r",
        r"\xff\xfe",
        ":smile:",
        "$x$",
    ):
        assert shown in printed
    assert printed.count("x" * 255) > len(CLASSES)  # not cut off, nor wrapped
    found = json.loads(checked(*command, "--json", str(data / "val"), code=2).split("}]}\n")[0] + "}]}")[
        "images"
    ]
    images = list_images(data, "val")
    assert {image["image"] for image in found} == {images.file(index) for index in range(len(images))}
    named = {answer["name"] for answer in found[0]["predictions"]}
    assert named == set(CLASSES)


def test_exports_keep_them(run: Path, data: Path, tmp_path: Path, checked: Callable[..., str]) -> None:
    best, image = str(run / "model_best.pth.tar"), str(data / "val" / "-x" / "-x.jpg")
    own = tmp_path / os.fsdecode(b"\xc3\xa9\x1b.safetensors")
    assert r"\x1b.safetensors" in checked(
        "export", "weights", "--checkpoint-path", best, "--weight-path", str(own)
    )
    assert read_weights(own).metadata.classes == tuple(sorted(CLASSES))
    pytest.importorskip("onnxruntime")
    onnx = str(tmp_path / "it.onnx")
    checked("export", "onnx", "--pretrained-from-file", best, "--output", onnx)
    printed = checked("classify", "--cpu", "--json", "--topk", "16", onnx, image)
    (found,) = json.loads(printed.strip().splitlines()[-1])["images"]
    assert {answer["name"] for answer in found["predictions"]} == set(CLASSES)


def test_packing_and_checking_keep_them(
    data: Path, run: Path, tmp_path: Path, checked: Callable[..., str]
) -> None:
    checked("prepare", "check", str(data), "-j", "0", code=1)
    found = json.loads(checked("prepare", "check", str(data), "-j", "0", "--json", code=1))
    assert set(found["splits"]["val"]["images_per_class"]) == set(CLASSES)
    out = tmp_path / os.fsdecode(b"\xffpacked")
    checked("prepare", "pack", str(data), str(out), "-j", "0", "--on-bad-image", "skip")
    assert packed_classes(out, ("train", "val")) == sorted(CLASSES)
    flags = ["--data-backend", "packed", "--evaluate", "--workspace", str(tmp_path)]
    checked("train", str(out), *QUICK, *flags, "--pretrained-from-file", str(run / "model_best.pth.tar"))


def test_flags_that_a_terminal_would_obey(checked: Callable[..., str]) -> None:
    for arguments in (["train", "/no/\x1b[31m\n"], ["classify", "\x9b.jpg"], ["train", "--\x1b[2J"]):
        (line,) = checked(*arguments, code=2).splitlines()
        assert line.startswith("effnet: error: ")
