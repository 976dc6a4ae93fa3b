"""--on-nan rollback: back to the last good state with a lower learning rate."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.recipe import Recipe
from effnet.training.divergence import DivergedError
from effnet.training.run import train
from tests.runs import quick_recipe, records
from tests.training.poison import poisoned_batches
from tests.training.processes import in_processes

EPOCHS, STEPS, LIMIT = 3, 4, 2
# Two bad steps in a row, in the second epoch: numbers 3 and 4 of its four batches.
BAD = {STEPS + 3, STEPS + 4}


def recipe(workspace: Path, **changes: Any) -> Recipe:
    settings = {
        "epochs": EPOCHS,
        "on_nan": "rollback",
        "max_bad_steps": LIMIT,
        "use_ema": 0.9,
        "print_freq": 1,
    }
    return quick_recipe(workspace, **{**settings, **changes})


def rates(workspace: Path) -> list[tuple[int, int, float]]:
    return [(r["epoch"], r["step"], r["data"]["train.lr"]) for r in records(workspace, "iteration")]


def rollbacks(workspace: Path) -> list[dict[str, Any]]:
    return [r for r in records(workspace, "event") if r["data"]["event"] == "rollback"]


@pytest.fixture(scope="module")
def rolled_back(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Workspace of a run that went back once, with workers, and that stopped after the epoch done again."""
    workspace = tmp_path_factory.mktemp("rolled_back")
    with poisoned_batches(BAD):
        train(recipe(workspace, workers=2, run_epochs=2), images)
    return workspace


def test_the_epoch_is_done_again_at_half_the_rate(rolled_back: Path) -> None:
    (event,) = rollbacks(rolled_back)
    assert (event["epoch"], event["step"], event["data"]["lr_factor"]) == (1, STEPS, 0.5)
    assert (
        "epoch 2 step 4: the loss or a gradient was not finite in 2 steps in a row" in event["data"]["reason"]
    )
    lines = rates(rolled_back)
    places = [(epoch, step) for epoch, step, _ in lines]
    of_an_epoch = [(1, step) for step in range(1, STEPS + 1)]
    assert places == [(0, step) for step in range(1, STEPS + 1)] + of_an_epoch + of_an_epoch
    for (_, _, before), (_, _, after) in zip(lines[STEPS : 2 * STEPS], lines[2 * STEPS :], strict=True):
        assert after == pytest.approx(before / 2)
    progress = torch.load(rolled_back / "checkpoint.pth.tar", weights_only=True)["progress"]
    assert [progress[name] for name in ("epoch", "step", "rollbacks", "lr_factor")] == [2, 2 * STEPS, 1, 0.5]
    assert progress["skipped_steps"] == progress["bad_steps"] == 0


def test_a_resumed_run_keeps_the_lower_rate(rolled_back: Path, images: Path, tmp_path: Path) -> None:
    train(recipe(tmp_path, resume=str(rolled_back / "checkpoint.pth.tar")), images)
    train(recipe(tmp_path / "good", run_epochs=EPOCHS), images)
    halved = [lr for epoch, _, lr in rates(tmp_path) if epoch == 2]
    whole = [lr for epoch, _, lr in rates(tmp_path / "good") if epoch == 2]
    assert halved == pytest.approx([lr / 2 for lr in whole])


def test_without_a_checkpoint_it_goes_back_to_the_start_and_at_most_three_times(
    images: Path, tmp_path: Path
) -> None:
    settings = recipe(tmp_path, epochs=9, lr=1e6, warmup=0.0, max_bad_steps=10)
    with pytest.raises(DivergedError, match="the training has diverged"):
        train(settings, images)
    factors = [event["data"]["lr_factor"] for event in rollbacks(tmp_path)]
    assert factors == [0.5, 0.25, 0.125]
    assert {event["step"] for event in rollbacks(tmp_path)} == {0}
    assert not (tmp_path / "model_best.pth.tar").exists()
    # What is left is the state that it went back to, with the rate of the last attempt.
    left = torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)
    assert left["progress"]["lr_factor"] == 0.125
    assert all(value.isfinite().all() for value in left["state_dict"].values())


def run_of_a_rank(settings: Recipe, images: Path) -> dict[str, float]:
    """Train with bad batches in every process."""
    with poisoned_batches({3, 4}):
        return train(settings, images)


def test_several_processes_go_back_together(images: Path, tmp_path: Path) -> None:
    # Four steps an epoch are two with two processes.
    first, second = in_processes(2, run_of_a_rank, recipe(tmp_path, epochs=2, print_freq=2), images)
    assert first["train.loss"] == second["train.loss"]
    (event,) = rollbacks(tmp_path)
    assert event["data"]["lr_factor"] == 0.5
    progress = torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)["progress"]
    assert (progress["epoch"], progress["rollbacks"]) == (2, 1)
    assert json.dumps(records(tmp_path, "summary"))
