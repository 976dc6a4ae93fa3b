"""The reliability diagram against scikit-learn, and as it is written by a command."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.data import Batch
from effnet.inference.reliability import Reliability
from effnet.runtime.errors import UserError
from effnet.runtime.processes import Processes

ALONE = Processes.alone(torch.device("cpu"))
TEMPERATURE = 2.5


@pytest.fixture
def answered() -> tuple[Reliability, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    logits, targets = 4 * torch.randn(500, 6, generator=random), torch.randint(6, (500,), generator=random)
    reliability = Reliability(ALONE, TEMPERATURE)
    for rows in torch.arange(500).split(64):
        reliability(Batch(torch.zeros(len(rows), 3, 1, 1), targets[rows]), logits[rows])
    reliability.sum_over()
    return reliability, logits, targets


@pytest.mark.parametrize("temperature", [1.0, TEMPERATURE])
def test_bins_are_those_of_scikit_learn(
    answered: tuple[Reliability, torch.Tensor, torch.Tensor], temperature: float
) -> None:
    calibration = pytest.importorskip("sklearn.calibration", reason="extra sample")
    reliability, logits, targets = answered
    confidence, predicted = (logits / temperature).softmax(1).max(1)
    accuracy, mean = calibration.calibration_curve(
        (predicted == targets).numpy(), confidence.numpy(), n_bins=15
    )
    rows = reliability.rows(temperature)
    assert sum(row[2] for row in rows) == 500
    np.testing.assert_allclose([row[3] for row in rows], mean, atol=1e-6)
    np.testing.assert_allclose([row[4] for row in rows], accuracy, atol=1e-6)
    assert all(low <= found <= high for low, high, _, found, _ in rows)


def test_a_table_and_a_picture(
    answered: tuple[Reliability, torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="extra plots")
    reliability, _, _ = answered
    reliability.write(tmp_path / "r.csv")
    rows = list(csv.DictReader((tmp_path / "r.csv").open()))
    assert {row["temperature"] for row in rows} == {"1", "2.5"}
    assert sum(int(row["images"]) for row in rows) == 1000
    reliability.write(tmp_path / "r.png")
    with Image.open(tmp_path / "r.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    with pytest.raises(UserError, match=r"--reliability .*r\.xyz"):
        reliability.write(tmp_path / "r.xyz")
