"""Pure weights out of a checkpoint, by NVIDIA's command and by ours."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from effnet.cli import main
from effnet.weights import WeightsMetadata, create_model, load_model, read_weights
from tests.runs import PREPROCESSING

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint whose averaged weights are twice the plain ones."""
    model = create_model("efficientnet-lite0", num_classes=2)
    plain = model.state_dict()
    metadata = WeightsMetadata("efficientnet-lite0", PREPROCESSING, padding="same", classes=("cat", "dog"))
    path = tmp_path / "checkpoint.pth.tar"
    averaged = {key: 2 * value for key, value in plain.items()}
    content = {"epoch": 1, "state_dict": plain, "state_dict_ema": averaged, "metadata": metadata.to_dict()}
    torch.save(content, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("ema", [False, True])
def test_weights_and_metadata_come_out(checkpoint: Path, suffix: str, ema: bool) -> None:
    path = checkpoint.with_name(f"weights{suffix}")
    flags = ["--checkpoint-path", str(checkpoint), "--weight-path", str(path), *(["--ema"] if ema else [])]
    assert main(["export", "weights", *flags]) == 0
    stored = torch.load(checkpoint, weights_only=True)["state_dict_ema" if ema else "state_dict"]
    written = read_weights(path)
    assert written.metadata is not None
    assert written.metadata.classes == ("cat", "dog")
    assert all(torch.equal(value, stored[key]) for key, value in written.state_dict.items())
    model = load_model(path)
    assert torch.equal(model.classifier.fc.weight, stored["classifier.fc.weight"])


def test_the_reference_s_command(checkpoint: Path) -> None:
    path = checkpoint.with_name("weights.pth")
    flags = ["--checkpoint-path", str(checkpoint), "--weight-path", str(path)]
    subprocess.run([sys.executable, "checkpoint2model.py", *flags], cwd=REPOSITORY, check=True)
    assert load_model(path).config.num_classes == 2


def test_a_checkpoint_without_averaged_weights(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = tmp_path / "plain.pth"
    torch.save(torch.load(checkpoint, weights_only=True)["state_dict"], plain)
    flags = ["--checkpoint-path", str(plain), "--weight-path", str(tmp_path / "w.pth"), "--ema"]
    assert main(["export", "weights", *flags]) == 2
    assert "plain.pth" in capsys.readouterr().err
