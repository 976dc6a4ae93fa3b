"""The benchmark of a whole epoch beside its halves."""

import json
from pathlib import Path

import pytest

from benchmarks.commands import main
from benchmarks.epoch import EPOCH, INPUT, STEP
from effnet.training.trainer import Trainer

FLAGS = "--data-backend synthetic --image-size 32 -b 2 --rounds 2 --steps 2 --device cpu --use-ema 0.9"


def test_the_epoch_is_the_trainers_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs: list[int] = []
    train_epoch = Trainer.train_epoch

    def counting(trainer: Trainer) -> dict[str, float]:
        assert trainer.state.ema is not None
        epochs.append(trainer.steps_per_epoch)
        return train_epoch(trainer)

    monkeypatch.setattr(Trainer, "train_epoch", counting)
    file = tmp_path / "epoch.json"
    assert main(["epoch", *FLAGS.split(), "--json", str(file)]) == 0
    assert epochs == [2, 2, 2]
    result = json.loads(file.read_text())
    rates = result["images_per_second"]
    assert result["share_of_the_slower"] == pytest.approx(rates[EPOCH] / min(rates[INPUT], rates[STEP]))
    assert {name: len(rounds) for name, rounds in result["rounds"].items()} == {INPUT: 2, STEP: 2, EPOCH: 2}
    assert "% of the slower" in capsys.readouterr().out


def test_too_few_images(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["epoch", *FLAGS.split(), "-b", "64", "--steps", "100000"]) == 2
    assert "give fewer --steps" in capsys.readouterr().err
