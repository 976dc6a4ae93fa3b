"""Flags that NVIDIA's command lines carry beyond its README: run, and seen in what the run leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from effnet.cli import main
from effnet.cli.model2onnx import model2onnx
from effnet.training.checkpoint import read_checkpoint
from effnet.weights import WeightsMetadata, create_model, save_weights
from tests.runs import CLASSES, PREPROCESSING, records

REPOSITORY = Path(__file__).resolve().parent.parent
QUICK = [
    *("--arch", "efficientnet-lite0", "--image-size", "32", "--batch-size", "8", "--workers", "0"),
    *("--device", "cpu", "--lr", "0.01"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of three classes."""
    path = tmp_path_factory.mktemp("weights") / "own.pth"
    metadata = WeightsMetadata("efficientnet-lite0", PREPROCESSING, padding="same", classes=CLASSES)
    save_weights(path, create_model("efficientnet-lite0", num_classes=3).state_dict(), metadata)
    return path


def test_a_training_without_limits(images: Path, tmp_path: Path) -> None:
    unlimited = ["--prof", "-1", "--run-epochs", "-1", "--gather-checkpoints", "-1"]
    accepted = ["--trt", "True", "--num_classes", "3", "--interpolation", "triangular"]
    flags = [*QUICK, "--epochs", "3", "--workspace", str(tmp_path), *unlimited, *accepted]
    assert main(["train", str(images), *flags], prog="main.py") == 0
    gathered = sorted(path.name for path in tmp_path.glob("checkpoint_*"))
    assert gathered == [f"checkpoint_000{epoch}.pth.tar" for epoch in range(3)]
    assert [read_checkpoint(tmp_path / name)["epoch"] for name in gathered] == [1, 2, 3]
    last = read_checkpoint(tmp_path / gathered[-1])
    assert last["metadata"]["preprocessing"]["interpolation"] == "triangular"
    assert last["resolved_recipe"]["run"]["prof"] is None
    assert last["resolved_recipe"]["schedule"]["run_epochs"] == 3
    # Every epoch went through all 4 batches of 8 of the 36 images; the summary is of the whole run.
    assert [record["step"] for record in records(tmp_path, "epoch")] == [4, 8, 12]
    epochs = [record["data"] for record in records(tmp_path, "epoch")]
    (summary,) = (record["data"] for record in records(tmp_path, "summary"))
    assert summary["val.compute_latency_at100"] == max(epoch["val.compute_latency_at100"] for epoch in epochs)
    rates = [epoch["train.total_ips"] for epoch in epochs]
    assert summary["train.total_ips"] == pytest.approx(3 / sum(1 / rate for rate in rates))
    assert summary["val.top1"] == epochs[-1]["val.top1"]


@pytest.mark.parametrize("flag", ["--prof", "--run-epochs", "--gather-checkpoints"])
def test_other_negative_numbers_are_refused(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "/images", *QUICK, flag, "-2"]) == 2
    assert f"{flag} must be at least" in capsys.readouterr().err


def test_classify(weights: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(next((images / "val").glob("*/*")))
    common = [
        "--arch",
        "efficientnet-lite0",
        "--pretrained-from-file",
        str(weights),
        "--image",
        photo,
        "--cpu",
    ]
    assert main([*common, "--trt", "True", "--num_classes", "3", "--json"], command="classify") == 0
    assert len(json.loads(capsys.readouterr().out)["images"]) == 1
    assert main([*common, "--num_classes", "1000"], command="classify") == 2
    error = capsys.readouterr().err
    assert f"--num-classes 1000: {weights} has 3 classes" in error
    assert len(error.splitlines()) == 1


def test_checkpoint2model(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["--checkpoint-path", str(weights), "--weight-path", str(tmp_path / "out.pth"), "--trt", "True"]
    assert main(["export", "weights", *paths, "--num_classes", "5"]) == 2
    assert "has 3 classes" in capsys.readouterr().err
    assert not (tmp_path / "out.pth").exists()
    assert main(["export", "weights", *paths, "--num_classes", "3"]) == 0
    assert torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]["classifier.fc.bias"].shape == (
        3,
    )


@pytest.mark.slow
def test_model2onnx_fixes_the_batch(weights: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="extra onnx")
    pytest.importorskip("onnxruntime", reason="extra onnx")
    flags = ["--pretrained-from-file", str(weights), "--device", "cpu", "--num_classes", "3", "-b", "3"]

    def batch_of(path: Path) -> object:
        size = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0]
        return size.dim_param or size.dim_value

    assert model2onnx([*flags, "--trt", "False", "--output", str(tmp_path / "fixed.onnx")]) == 0
    assert batch_of(tmp_path / "fixed.onnx") == 3
    assert main(["export", "onnx", *flags, "--output", str(tmp_path / "any.onnx")]) == 0
    assert isinstance(batch_of(tmp_path / "any.onnx"), str)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_processes_with_cores_of_their_own(images: Path, tmp_path: Path) -> None:
    script = tmp_path / "shows_cores.py"
    script.write_text(
        "import os, sys\n"
        "from effnet.cli import main\n"
        "code = main(sys.argv[1:], command='train')\n"
        f"with open({str(tmp_path)!r} + '/cores' + os.environ['RANK'], 'w') as file:\n"
        "    print(*os.sched_getaffinity(0), file=file)\n"
        "sys.exit(code)\n"
    )
    flags = [*QUICK, "--epochs", "1", "--prof", "1", "--gpu-affinity", "socket_unique_contiguous"]
    command = [sys.executable, str(REPOSITORY / "multiproc.py"), "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        [*command, str(images), *flags, "--workspace", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (set((tmp_path / f"cores{rank}").read_text().split()) for rank in range(2))
    assert first
    assert second
    assert not first & second
