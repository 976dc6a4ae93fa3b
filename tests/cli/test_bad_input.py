"""Bad input gets one line that names the file or flag, exit code 2, and no traceback."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from effnet.cli import main
from tests.runs import write_images


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that trains: two classes, eight images each."""
    root = tmp_path_factory.mktemp("good")
    for split in ("train", "val"):
        write_images(root / split, {"cat": 8, "dog": 8})
    return root


@pytest.fixture
def data(good: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(good, tmp_path / "data"))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    def train(*arguments: str, workspace: str = "") -> str:
        """Train as `effnet train` with quick settings; return the one line of a failure."""
        quick = [
            "-a",
            "efficientnet-lite0",
            "--image-size",
            "32",
            "-b",
            "8",
            "--epochs",
            "1",
            "--workers",
            "0",
        ]
        folder = workspace or str(tmp_path / "run")
        code = main(["train", *quick, "--device", "cpu", "--workspace", folder, *arguments])
        error = capsys.readouterr().err
        assert code == 2
        lines = [line for line in error.splitlines() if "error:" in line]
        assert len(lines) == 1, error
        assert "Traceback" not in error
        return lines[0]

    return train


def test_no_such_folder(run: Callable[..., str]) -> None:
    assert "/no/where" in run("/no/where")


def test_no_folder_named(run: Callable[..., str]) -> None:
    assert "--data-backend synthetic" in run()


def test_no_train_folder(run: Callable[..., str], data: Path) -> None:
    shutil.rmtree(data / "train")
    assert "train" in run(str(data))


def test_class_without_images(run: Callable[..., str], data: Path) -> None:
    (data / "train/empty").mkdir()
    (data / "val/empty").mkdir()
    assert "empty" in run(str(data))


def test_class_in_val_that_train_lacks(run: Callable[..., str], data: Path) -> None:
    shutil.copytree(data / "val/cat", data / "val/cow")
    assert "cow" in run(str(data))


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("workers", ["0", "1"])
def test_truncated_jpeg(run: Callable[..., str], data: Path, split: str, workers: str) -> None:
    path = data / split / "dog/3.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    assert str(path) in run(str(data), "--workers", workers)


def test_unknown_model(run: Callable[..., str], data: Path) -> None:
    assert "efficientnet-b4" in run(str(data), "--arch", "efficientnet_b4")


@pytest.mark.parametrize(
    "flags",
    [
        ["--batch-size", "0"],
        ["--mixup", "-1"],
        ["--lr", "nan"],
        ["--epochs", "one"],
        ["--optimizer", "adam"],
        ["--no-such-flag"],
        ["--recipe", "/no/such.yaml"],
        ["--class-map", "/no/such.txt"],
        ["--nesterov"],
        ["--batch-size", "1000"],
    ],
)
def test_flags(run: Callable[..., str], data: Path, flags: list[str]) -> None:
    assert flags[0].lstrip("-").split("-")[0] in run(str(data), *flags)


@pytest.mark.parametrize("flag", ["--resume", "--pretrained-from-file"])
def test_weight_files(run: Callable[..., str], data: Path, tmp_path: Path, flag: str) -> None:
    text, truncated, absent = (tmp_path / name for name in ("text.pth", "truncated.pth", "absent.pth"))
    text.write_text("not a checkpoint\n")
    torch.save({"epoch": 1, "state_dict": {"w": torch.zeros(1000)}}, truncated)
    truncated.write_bytes(truncated.read_bytes()[:2000])
    for path in (text, truncated, absent):
        assert str(path) in run(str(data), flag, str(path))


@pytest.mark.parametrize("flag", ["--resume", "--pretrained-from-file"])
def test_checkpoint_of_another_model(
    run: Callable[..., str], data: Path, tmp_path: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ["--device", "cpu", "--image-size", "32", "-b", "8", "--epochs", "1", "--workers", "0"]
    assert main(["train", str(data), "-a", "efficientnet-lite1", "--workspace", str(tmp_path), *other]) == 0
    capsys.readouterr()
    line = run(str(data), flag, str(tmp_path / "checkpoint.pth.tar"))
    assert "efficientnet-lite1" in line


def test_resume_from_pure_weights(run: Callable[..., str], data: Path, tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1)}, tmp_path / "w.pth")
    assert "--pretrained-from-file" in run(str(data), "--resume", str(tmp_path / "w.pth"))


def test_contradicting_sources(run: Callable[..., str], data: Path) -> None:
    assert "contradict" in run(str(data), "--pretrained", "--pretrained-from-file", "w.pth")


def test_workspace_that_is_a_file(run: Callable[..., str], data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "--workspace" in run(str(data), workspace=str(tmp_path / "file"))


def test_workspace_that_cannot_be_written(run: Callable[..., str], data: Path) -> None:
    # Root writes everywhere but on a file system that is no place for files.
    folder = "/proc/effnet" if os.geteuid() == 0 else "/effnet-run"
    assert "--workspace" in run(str(data), workspace=folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(run: Callable[..., str], data: Path) -> None:
    assert "--device cuda" in run(str(data), "--device", "cuda")
    assert "tf32" in run(str(data), "--precision", "tf32")


@pytest.mark.parametrize("flags", [["--num-classes", "3"], ["--topk", "6"]])
@pytest.mark.parametrize("command", ["train", "evaluate", "quantize"])
def test_a_number_of_classes_that_the_folders_contradict(
    command: str, flags: list[str], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["-a", "efficientnet-quant-b0", "--from-scratch"] if command == "quantize" else []
    quick = ["--device", "cpu", "--image-size", "32", "-b", "8", "--workspace", str(tmp_path / "run")]
    assert main([command, str(data), *model, *quick, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{' '.join(flags)}: {data} has 2 classes" in line


def test_a_number_of_classes_that_a_class_map_contradicts(
    run: Callable[..., str], data: Path, tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    line = run(str(data), "--class-map", str(tmp_path / "classes.txt"), "--num-classes", "3")
    assert "--num-classes 3: --class-map" in line
    assert "has 2 classes" in line


def test_an_unknown_command_or_flag_suggests_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian", "DIR"]) == 2
    assert "did you mean train?" in capsys.readouterr().err
    assert main(["train", "DIR", "--optimzer", "sgd"]) == 2
    assert "did you mean --optimizer?" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_out_of_memory_names_the_flags_to_lower(command: str, tmp_path: Path) -> None:
    limited = (
        "import resource, sys; from effnet.cli import main; "
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)); sys.exit(main(sys.argv[1:]))"
    )
    flags = ["--data-backend", "synthetic", "--device", "cpu", "--image-size", "2048", "-b", "1024"]
    ended = subprocess.run(
        [sys.executable, "-c", limited, command, *flags, "--workspace", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "out of memory; lower --batch-size" in line
