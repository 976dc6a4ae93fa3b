"""The epoch that --best-metric makes the best one, in a training whose validation is scripted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.benchmark.train import synthetic_trainer
from effnet.runtime.errors import UserError
from effnet.training.checkpoint import CheckpointFiles
from effnet.training.trainer import Trainer
from tests.runs import quick_recipe

pytestmark = pytest.mark.usefixtures("small_networks")

# The best epoch is the second by the loss, the third by top-1 and the first by top-5.
EPOCHS = [
    {"loss": 3.0, "top1": 10.0, "top5": 90.0},
    {"loss": 1.0, "top1": 20.0, "top5": 80.0},
    {"loss": 2.0, "top1": 30.0, "top5": 70.0},
    {"loss": 2.5, "top1": 25.0, "top5": 60.0},
]


def scripted(workspace: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Callable[[], Trainer]:
    """Return a function that makes a trainer which trains nothing; validation is `EPOCHS`, one after the other."""

    def make() -> Trainer:
        # A scripted validation has no answers from which to calibrate.
        shared = {"num_classes": 5, "lr_schedule": "linear", "calibrate_confidence": False}
        recipe = quick_recipe(workspace, epochs=len(EPOCHS), **shared, **changes)
        trainer, _ = synthetic_trainer(recipe, torch.device("cpu"))
        monkeypatch.setattr(trainer, "train_epoch", lambda: {"loss": 1.0})
        monkeypatch.setattr(
            trainer.validations,
            "validator",
            lambda model, observe, watch: EPOCHS[trainer.state.progress.epoch],
        )
        trainer.files = CheckpointFiles(workspace, "checkpoint.pth.tar", 0)
        return trainer

    return make


@pytest.mark.parametrize(
    ("changes", "best"), [({}, 3), ({"best_metric": "loss"}, 2), ({"best_metric": "topk"}, 1)]
)
def test_the_best_checkpoint(
    changes: dict[str, Any], best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = scripted(tmp_path, monkeypatch, **changes)()
    trainer.run()
    assert torch.load(trainer.files.best, weights_only=True)["epoch"] == best
    assert trainer.state.progress.best_top1 == 30.0
    key = trainer.best.key
    assert trainer.state.progress.best_value == EPOCHS[best - 1][key]


@pytest.mark.parametrize(("metric", "epochs"), [("top1", 4), ("loss", 3), ("topk", 2)])
def test_early_stopping_follows_it(
    metric: str, epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = 1
    trainer = scripted(tmp_path, monkeypatch, best_metric=metric, early_stopping_patience=patience)()
    trainer.run()
    assert trainer.state.progress.epoch == epochs


@pytest.mark.parametrize(("before", "then", "best"), [("loss", "loss", 2), ("topk", "top1", 3)])
def test_a_resumed_run_goes_on_from_the_best_so_far(
    before: str, then: str, best: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scripted(tmp_path, monkeypatch, best_metric=before, run_epochs=2)()
    first.run()
    state = torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)
    second = scripted(tmp_path, monkeypatch, best_metric=then)()
    second.resume(state)
    second.run()
    assert second.state.progress.epoch == len(EPOCHS)
    assert torch.load(second.files.best, weights_only=True)["epoch"] == best


def test_an_epoch_whose_validation_is_not_finite_is_never_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = scripted(tmp_path, monkeypatch)()
    scores = [dict(epoch) for epoch in EPOCHS]
    scores[2]["loss"] = float("nan")  # the best one by top-1
    monkeypatch.setattr(
        trainer.validations, "validator", lambda model, observe, watch: scores[trainer.state.progress.epoch]
    )
    trainer.run()
    assert torch.load(trainer.files.best, weights_only=True)["epoch"] == 4
    assert trainer.state.progress.best_top1 == 25.0


def test_a_training_whose_last_validation_is_not_finite_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = scripted(tmp_path, monkeypatch)()
    scores = [dict(epoch) for epoch in EPOCHS]
    scores[3]["loss"] = float("inf")
    monkeypatch.setattr(
        trainer.validations, "validator", lambda model, observe, watch: scores[trainer.state.progress.epoch]
    )
    with pytest.raises(UserError, match="the validation loss of the last epoch is not finite"):
        trainer.run()
    assert torch.load(trainer.files.best, weights_only=True)["epoch"] == 3
