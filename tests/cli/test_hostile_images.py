"""Commands on hostile image files: one line and exit code 2 where the image is the argument, else a broken image."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from effnet.cli import main
from effnet.inference.images import find_images
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata, create_model, save_weights
from tests.hostile_images import gif, jpeg, jpeg_of_scans, noise, png
from tests.runs import PREPROCESSING, records, write_images

BOMBS: dict[str, Callable[[], bytes]] = {
    "large.jpg": lambda: jpeg(45_000, 45_000),
    "scans.jpg": lambda: jpeg_of_scans(3000, 64),
    "large.png": lambda: png(13_000, 13_000),
    "large.gif": lambda: gif((13_000, 13_000), (13_000, 13_000)),
    "empty.jpg": lambda: b"",
}
QUICK = ["-a", "efficientnet-lite0", "--image-size", "32", "-b", "8", "--epochs", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a model of two classes."""
    torch.manual_seed(0)
    model = create_model("efficientnet-lite0", num_classes=2)
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    metadata = WeightsMetadata("efficientnet-lite0", PREPROCESSING, padding="same", classes=("cat", "dog"))
    save_weights(path, model.state_dict(), metadata)
    return path


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of hostile files."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, make in BOMBS.items():
        (folder / name).write_bytes(make())
    return folder


@pytest.fixture
def data(bombs: Path, tmp_path: Path) -> Path:
    """A data set of two classes that holds them all in each."""
    root = tmp_path / "data"
    for split in ("train", "val"):
        write_images(root / split, {"cat": 8, "dog": 8})
        for name in BOMBS:
            os.link(bombs / name, root / split / "dog" / name)
    return root


@pytest.mark.parametrize("name", [*BOMBS, "/dev/zero", "fifo.jpg", "sparse.jpg"])
def test_classify_tells_in_one_line(
    name: str, bombs: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bombs / name
    if name == "fifo.jpg":
        os.mkfifo(path := tmp_path / name)
    elif name == "sparse.jpg":
        with open(path := tmp_path / name, "wb") as file:
            file.truncate(10 * 10**9)
    assert main(["classify", "--cpu", "--pretrained-from-file", str(weights), str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"error: {path}: can't be decoded: ")


def test_classify_goes_on_with_the_others_and_within_its_limit(
    bombs: Path, weights: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    noise().save(tmp_path / "good.png")
    command = ["classify", "--json", "--cpu", "--pretrained-from-file", str(weights)]
    assert main([*command, str(bombs), str(tmp_path)]) == 2
    images = json.loads(capsys.readouterr().out)["images"]
    assert [Path(image["image"]).name for image in images if "error" in image] == sorted(BOMBS)
    assert len(images) == len(BOMBS) + 1
    assert main([*command, "--max-pixels", "1919", str(tmp_path)]) == 2
    assert "48 x 40 pixels are more than --max-pixels allows (1,919" in capsys.readouterr().out
    assert main([*command, "--max-pixels", "1920", str(tmp_path)]) == 0
    assert main([*command, "--max-pixels", "0", str(tmp_path)]) == 2


@pytest.mark.slow
def test_classify_takes_no_more_memory_than_for_a_normal_image(
    bombs: Path, weights: Path, tmp_path: Path
) -> None:
    noise().save(tmp_path / "good.png")
    most = {}
    for name, path in {"good": tmp_path / "good.png", "bombs": bombs}.items():
        command = [
            sys.executable,
            "-m",
            "effnet",
            "classify",
            "--cpu",
            "--pretrained-from-file",
            str(weights),
        ]
        with subprocess.Popen([*command, str(path)], stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            lines = process.stderr.read().splitlines()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == (0 if name == "good" else 2)
        assert len(lines) == (0 if name == "good" else len(BOMBS))
        most[name] = usage.ru_maxrss * 1024
    assert most["bombs"] - most["good"] < 1 << 30


@pytest.mark.parametrize("workers", ["0", "1"])
def test_training_stops_at_them_or_leaves_them_out(
    workers: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(data), *QUICK, "--workers", workers, "--workspace", str(tmp_path)]
    assert main(command) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert f"{data}/train/dog/" in line
    assert main([*command, "--on-bad-image", "skip"]) == 0
    left_out = [record["data"] for record in records(tmp_path, "event")]
    for split in ("train", "val"):
        named = {Path(name).name for event in left_out if event["split"] == split for name in event["images"]}
        assert named == set(BOMBS)


def test_the_check_and_the_packing_of_a_data_set(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "check", str(data), "-j", "0", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["splits"]["val"]["broken"]
    assert {Path(name).name for name in found} == set(BOMBS)
    pack = ["prepare", "pack", str(data), str(tmp_path / "packed"), "-j", "0"]
    assert main(pack) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main([*pack, "--on-bad-image", "skip"]) == 0
    assert "16 images in train, 16 images in val" in capsys.readouterr().out
    assert main(["prepare", "check", str(data), "-j", "0", "--max-pixels", "1919"]) == 1
    assert "problems: broken images: 42" in capsys.readouterr().out


def test_an_answer_that_is_not_finite_is_an_error(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = create_model("efficientnet-lite0", num_classes=2)
    state = model.state_dict()
    state["classifier.fc.weight"].fill_(3e38)  # finite, as they must be; their sums are not
    path, image = tmp_path / "huge.safetensors", tmp_path / "it.png"
    metadata = WeightsMetadata("efficientnet-lite0", PREPROCESSING, padding="same", classes=("cat", "dog"))
    save_weights(path, state, metadata)
    noise().save(image)
    for flags in ([], ["--json"]):
        assert main(["classify", "--cpu", "--pretrained-from-file", str(path), *flags, str(image)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert f"{image}: the logits of efficientnet-lite0 are not finite" in line


def test_metrics_that_are_not_finite_are_strict_json(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = create_model("efficientnet-lite0", num_classes=2).state_dict()
    state["classifier.fc.weight"].fill_(3e38)
    path = tmp_path / "huge.safetensors"
    metadata = WeightsMetadata("efficientnet-lite0", PREPROCESSING, padding="same", classes=("cat", "dog"))
    save_weights(path, state, metadata)
    command = [
        "train",
        str(data),
        *QUICK,
        "--workers",
        "0",
        "--workspace",
        str(tmp_path),
        "--evaluate",
        "--json",
    ]
    assert main([*command, "--on-bad-image", "skip", "--pretrained-from-file", str(path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is no JSON")

    (metrics,) = (json.loads(line, parse_constant=refuse) for line in lines)
    assert metrics["val.loss"] == "nan"
    for line in (tmp_path / "report.json").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_links_that_form_a_loop_end_no_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    noise().save(tmp_path / "sub" / "it.png")
    noise().save(tmp_path / "sub" / ".hidden.png")
    for name in "abc":
        (tmp_path / "sub" / name).symlink_to(tmp_path)
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "other.png").symlink_to("sub/it.png")
    assert find_images([f"{tmp_path}/**/*.png"]) == [tmp_path / "other.png", tmp_path / "sub" / "it.png"]
    monkeypatch.chdir(tmp_path)
    assert find_images(["**/i*.png"]) == [Path("sub/it.png")]
    assert {path.name for path in find_images(["sub"])} == {"it.png", ".hidden.png"}
    assert find_images(["sub/*.png"]) == [Path("sub/it.png")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(UserError, match="closed: Permission denied"):
        find_images([str(tmp_path)])


def test_a_folder_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=f"{tmp_path}: Permission denied"):
        find_images([str(tmp_path)])


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 256])
def test_a_name_that_is_too_long(name: str) -> None:
    with pytest.raises(UserError, match="File name too long"):
        find_images([name])


def test_standard_input_without_an_end_is_cut_off(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/zero", "rb") as endless:
        monkeypatch.setattr(sys, "stdin", type("stdin", (), {"buffer": endless}))
        command = ["classify", "--cpu", "--pretrained-from-file", str(weights), "--max-pixels", "1000", "-"]
        assert main(command) == 2
