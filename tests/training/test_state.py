"""The state of a training is saved and restored as one object."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.benchmark.train import synthetic_trainer
from effnet.runtime.errors import UserError
from effnet.training.best import Best
from effnet.training.state import Progress
from effnet.training.trainer import Trainer
from tests.runs import quick_recipe

CPU = torch.device("cpu")
TOP1 = Best.of("top1", 5)


def trainer(workspace: Path, **changes: Any) -> Trainer:
    values = {"num_classes": 4, "prof": 3, "use_ema": 0.9, "precision": "fp16", "image_size": 32, **changes}
    return synthetic_trainer(quick_recipe(workspace, **values), CPU)[0]


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_equal(value, other[key], f"{where}/{key}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


def test_everything_is_restored(tmp_path: Path) -> None:
    trained = trainer(tmp_path)
    trained.train_epoch()
    trained.state.progress.finish_epoch({"val.top1": 25.0, "val_ema.top1": 50.0}, TOP1)
    saved = copy.deepcopy(trained.state.state_dict())
    fresh = trainer(tmp_path, seed=1)
    untouched = fresh.state.state_dict()
    for entry in ("progress", "loader"):
        assert untouched[entry] != saved[entry]
    assert not torch.equal(
        untouched["state_dict"]["classifier.fc.weight"], saved["state_dict"]["classifier.fc.weight"]
    )
    torch.rand(5)
    fresh.state.load_state_dict(saved)
    assert_equal(fresh.state.state_dict(), saved)


def test_a_missing_entry_is_named(tmp_path: Path) -> None:
    state = trainer(tmp_path).state
    saved = state.state_dict()
    del saved["loader"], saved["optimizer"]
    with pytest.raises(UserError, match=r"no training state to resume \(loader, optimizer missing\)"):
        state.load_state_dict(saved)


def test_an_average_that_is_not_saved_starts_from_the_weights(tmp_path: Path) -> None:
    saved = copy.deepcopy(trainer(tmp_path, use_ema=None).state.state_dict())
    state = trainer(tmp_path, seed=1).state
    state.load_state_dict(saved)
    assert state.ema is not None
    assert_equal(dict(state.ema.module.state_dict()), dict(saved["state_dict"]))


def test_the_best_epoch_is_that_of_weights_or_average() -> None:
    progress = Progress()
    assert progress.finish_epoch({"val.top1": 10.0, "val_ema.top1": 5.0}, TOP1)
    assert (progress.best_top1, progress.best_is_ema, progress.stale_epochs) == (10.0, False, 0)
    assert progress.finish_epoch({"val.top1": 9.0, "val_ema.top1": 12.0}, TOP1)
    assert (progress.best_top1, progress.best_is_ema, progress.stale_epochs) == (12.0, True, 0)
    assert not progress.finish_epoch({"val.top1": 12.0, "val_ema.top1": 12.0}, TOP1)
    assert not progress.finish_epoch({}, TOP1)
    assert (progress.best_top1, progress.epoch, progress.stale_epochs) == (12.0, 4, 2)
