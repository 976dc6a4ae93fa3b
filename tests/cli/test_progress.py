"""Progress that a command shows on a terminal; elsewhere it is silent."""

import os
from pathlib import Path

import pytest
import torch

from effnet.cli import main
from effnet.cli.commands import command_parser
from effnet.models import model_config
from effnet.models.efficientnet import EfficientNet
from effnet.weights import WeightsMetadata, save_weights
from tests.cli.parsers import leaves
from tests.doctor.environments import QUICK_TORCH, environment, variables
from tests.runs import CLASSES, PREPROCESSING
from tests.terminal import fake_terminal, on_terminal

pytestmark = pytest.mark.usefixtures("small_networks")

QUICK = ["--image-size", "32", "-b", "6", "--device", "cpu"]
WITHOUT_PYTORCH = {("models",), ("doctor",), ("completion",), ("watch",)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    config = model_config("efficientnet-lite0", num_classes=3)
    metadata = WeightsMetadata(config.name, PREPROCESSING, classes=CLASSES)
    save_weights(path, EfficientNet(config).state_dict(), metadata)
    return path


@pytest.mark.parametrize("quiet", [False, True])
def test_quantizing(
    monkeypatch: pytest.MonkeyPatch, quiet: bool, images: Path, weights: Path, tmp_path: Path
) -> None:
    terminal = fake_terminal(monkeypatch)
    arguments = ["-a", "efficientnet-quant-lite0", "--pretrained-from-file", str(weights), *QUICK]
    arguments += ["--epochs", "0", "--workers", "0", "--workspace", str(tmp_path), "--no-checkpoints"]
    arguments += ["--quiet"] if quiet else []
    assert main(["quantize", str(images), *arguments]) == 0
    shown = terminal.getvalue()
    if quiet:
        assert shown == ""
        return
    for work in ("loading PyTorch", "looking through", "calibrating", "finding ranges", "validating"):
        assert work in shown


@pytest.mark.parametrize("quiet", [False, True])
def test_exporting(
    monkeypatch: pytest.MonkeyPatch,
    quiet: bool,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = fake_terminal(monkeypatch)
    pytest.importorskip("onnxruntime", reason="extra onnx")
    flags = ["--cpu", "--output", str(tmp_path / "model.onnx"), *(["--quiet"] if quiet else [])]
    assert main(["export", "onnx", "--pretrained-from-file", str(weights), *flags]) == 0
    shown = terminal.getvalue()
    assert "model.onnx" in capsys.readouterr().out  # the result
    assert ("writing model.onnx" in shown) != quiet
    assert ("comparing with PyTorch" in shown) != quiet


def test_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = fake_terminal(monkeypatch)
    flags = ["-a", "efficientnet-lite0", "--image-size", "32", "-b", "1", "--engine", "torch"]
    flags += ["--device", "cpu", "--no-baselines", "--eager-only", "--rounds", "2", "--steps", "1"]
    assert main(["benchmark", "inference", *flags]) == 0
    assert "measuring" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_looking_for_copies(monkeypatch: pytest.MonkeyPatch, images: Path, tmp_path: Path) -> None:
    terminal = fake_terminal(monkeypatch)
    assert main(["init", str(images), "--out", str(tmp_path / "recipe.yaml")]) == 0
    assert "looking for copies" in terminal.getvalue()


def test_json_is_silent(
    monkeypatch: pytest.MonkeyPatch,
    images: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = fake_terminal(monkeypatch)
    flags = ["--json", "--workspace", str(tmp_path), "--workers", "0", *QUICK]
    assert main(["evaluate", str(images), str(weights), *flags]) == 0
    assert "\x1b" not in terminal.getvalue()
    assert capsys.readouterr().out.startswith("{")


def test_every_command_that_computes_can_be_quiet_and_tells_that_pytorch_is_loaded() -> None:
    computing = {
        words
        for words, parser in leaves(command_parser())
        if parser.get_default("needs_pytorch") is not False
    }
    assert {words for words, _ in leaves(command_parser())} - computing == WITHOUT_PYTORCH
    for words, parser in leaves(command_parser()):
        assert ("--quiet" in parser._option_string_actions) == (words in computing), words


def test_the_first_line_comes_before_pytorch_is_there(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    # Its import ends when the test opens the gate, and fails then.
    stub = {("torch", "99.0"): f"open({str(gate)!r}).read()\n{QUICK_TORCH}"}
    python = environment(tmp_path / "env", stubs=stub)
    command = [str(python), "-m", "effnet", "train", str(tmp_path)]
    with on_terminal(command, variables()) as terminal:
        terminal.until("loading PyTorch")
        gate.open("w").close()
        assert terminal.rest() == 2  # the stand-in lacks most of PyTorch
