"""The learning rate range test."""

import csv
from pathlib import Path

import numpy as np
import pytest

from effnet.cli import main
from effnet.runtime.errors import UserError
from effnet.training.find_lr import Sweep, find_lr
from tests.runs import quick_recipe, write_images

pytestmark = pytest.mark.usefixtures("small_networks")


def test_the_suggestion_is_where_the_loss_falls_fastest() -> None:
    rates = np.geomspace(1e-5, 1, 60)
    falls = 2 - 1 / (1 + np.exp(-3 * (np.log(rates) - np.log(1e-2))))  # steepest at 0.01
    losses = np.where(rates < 0.2, falls, 5.0).tolist()
    assert Sweep(rates.tolist(), losses, losses).suggestion == pytest.approx(1e-2, rel=0.15)


def test_a_loss_that_only_rises_has_none() -> None:
    with pytest.raises(UserError, match="the loss falls at none of the learning rates"):
        _ = Sweep([0.1, 0.2, 0.3], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]).suggestion


@pytest.mark.slow
def test_rates_rise_over_epochs_and_the_workspace_stays_as_it_is(images: Path, tmp_path: Path) -> None:
    settings = quick_recipe(tmp_path / "workspace", batch_size=8, optimizer_batch_size=16, optimizer="sgd")
    sweep = find_lr(settings, images, lowest=1e-4, highest=1e-2, steps=5)
    np.testing.assert_allclose(sweep.rates, np.geomspace(1e-4, 1e-2, 5))
    assert np.isfinite(sweep.losses).all()
    assert sweep.smoothed[0] == pytest.approx(sweep.losses[0])
    assert not (tmp_path / "workspace").exists()


@pytest.mark.slow
def test_the_command_writes_a_table_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    images = tmp_path / "images"
    write_images(images / "train", {"red": 12, "green": 12, "blue": 12}, coloured=True)
    write_images(images / "val", {"red": 1, "green": 1, "blue": 1}, coloured=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    flags = (
        "-a efficientnet-lite0 --image-size 32 -b 12 --workers 0 --device cpu --optimizer sgd --steps 20 "
        "--augmentation none --mixup 0 --from-lr 1e-3 --to-lr 0.3"
    )
    code = main(["find-lr", str(images), *flags.split(), "--csv", "lr.csv", "--plot", "lr.svg"])
    assert code == 0, capsys.readouterr().err
    assert "suggestion: --lr " in capsys.readouterr().out
    with open("lr.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert 3 <= len(rows) <= 20
    assert set(rows[0]) == {"lr", "loss", "smoothed loss"}
    assert "<svg" in Path("lr.svg").read_text(encoding="utf-8")
    assert sorted(path.name for path in Path().iterdir()) == ["lr.csv", "lr.svg"]
    assert main(["find-lr", str(images), "--from-lr", "1", "--to-lr", "0.1"]) == 2
    assert "--from-lr 1 is not below --to-lr 0.1" in capsys.readouterr().err
