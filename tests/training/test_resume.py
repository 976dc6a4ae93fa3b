"""The checkpoint that `--resume` takes: the newest that is not damaged, and never a silent start from scratch."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.cli import main
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.training.checkpoint import CheckpointFiles, read_checkpoint
from effnet.training.resume import finished_epochs, resume_path
from effnet.training.run import train
from tests.runs import quick_recipe


def saved(workspace: Path, *, epochs: int = 2, best: int = 0, keep: int = 0) -> CheckpointFiles:
    """Save the checkpoints of a run."""
    files = CheckpointFiles(workspace, "checkpoint.pth.tar", keep)
    for epoch in range(1, epochs + 1):
        content = {"epoch": epoch, "state_dict": {"weight": torch.full((1000,), float(epoch))}}
        files.save(content, is_best=epoch == best, gathered=True)
    files.flush()
    return files


def damage(path: Path) -> None:
    """Flip a bit in the middle of a file, which is a tensor's."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def auto(workspace: Path, **changes: Any) -> str | None:
    return resume_path(Recipe().replace({"workspace": str(workspace), "resume": "auto", **changes}).run)


def log_of(workspace: Path, epochs: int) -> None:
    lines = [json.dumps({"type": "epoch", "epoch": epoch}) for epoch in range(epochs)]
    workspace.joinpath("report.json").write_text("\n".join([*lines, '{"type": "epo']))


def test_auto_takes_the_latest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = saved(tmp_path)
    with caplog.at_level(logging.INFO, "effnet"):
        assert auto(tmp_path) == str(files.latest)
        assert auto(tmp_path) == str(files.latest)
    assert caplog.messages == [f"--resume auto: goes on from {files.latest}, epoch 2"]


@pytest.mark.parametrize("fault", ["damaged, its content differs from its digest", "no such file"])
def test_auto_falls_back_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    files = saved(tmp_path, best=2)
    damage(files.latest) if fault.startswith("damaged") else files.latest.unlink()
    with caplog.at_level(logging.INFO, "effnet"):
        assert auto(tmp_path) == str(files.previous)
    assert caplog.messages == [
        f"--resume auto: goes on from {files.previous}, epoch 1; {files.latest}: {fault}"
    ]


def test_auto_starts_from_scratch_without_results(tmp_path: Path) -> None:
    assert auto(tmp_path / "absent") is None
    # A run that was killed while its first checkpoint was written has logged an epoch or two.
    log_of(tmp_path, epochs=2)
    assert auto(tmp_path) is None


def test_auto_does_not_start_over_beside_a_log(tmp_path: Path) -> None:
    log_of(tmp_path, epochs=3)
    assert finished_epochs(tmp_path / "report.json") == 3
    with pytest.raises(UserError, match=r"report\.json is of a run with finished epochs; start from scratch"):
        auto(tmp_path)
    assert auto(tmp_path, no_checkpoints=True) is None
    assert auto(tmp_path, overwrite=True) is None


@pytest.mark.parametrize("lost", [True, False])
def test_auto_does_not_start_over_beside_a_best_model(tmp_path: Path, lost: bool) -> None:
    files = saved(tmp_path, best=1)
    for path in (files.latest, files.previous):
        path.unlink() if lost else damage(path)
    with pytest.raises(UserError) as caught:
        auto(tmp_path)
    message = str(caught.value)
    assert f"{files.latest}: {'no such file' if lost else 'damaged'}" in message
    assert f"go on with --resume {files.best}, or start from scratch with --overwrite" in message
    assert "\n" not in message
    assert auto(tmp_path, overwrite=True) is None

    damage(files.best)
    with pytest.raises(UserError, match="; start from scratch with --overwrite or in another --workspace"):
        auto(tmp_path)


def test_the_newest_of_those_by_epoch_is_proposed(tmp_path: Path) -> None:
    files = saved(tmp_path, epochs=3, best=1, keep=-1)
    files.latest.unlink()
    files.previous.unlink()
    with pytest.raises(UserError, match=r"--resume \S+checkpoint_0002\.pth\.tar, or"):
        auto(tmp_path)
    damage(tmp_path / "checkpoint_0002.pth.tar")
    with pytest.raises(UserError, match=r"--resume \S+checkpoint_0001\.pth\.tar, or"):
        auto(tmp_path)


def test_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint to evaluate \(.*no such file; .*no such file\)"):
        auto(tmp_path, evaluate=True)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = saved(tmp_path)
    damage(files.latest)
    for flag in ("--resume", "--pretrained-from-file"):
        assert main(["train", "--data-backend", "synthetic", flag, str(files.latest)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{files.latest}: damaged, its content differs from its digest" in line
        assert line.endswith(f"; the one before is {files.previous}") == (flag == "--resume")
    files.previous.unlink()
    with pytest.raises(UserError, match="go back to an earlier checkpoint$"):
        read_checkpoint(files.latest)


def test_a_run_goes_on_from_the_one_before_as_if_nothing_had_happened(images: Path, tmp_path: Path) -> None:
    recipe = quick_recipe(tmp_path, epochs=2, training_only=True)
    train(recipe, images)
    whole = read_checkpoint(tmp_path / "checkpoint.pth.tar")
    damage(tmp_path / "checkpoint.pth.tar")
    train(recipe.replace({"resume": "auto"}), images)
    again = read_checkpoint(tmp_path / "checkpoint.pth.tar")
    assert again["progress"] == whole["progress"]
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, again["state_dict"][key]), key
    assert read_checkpoint(tmp_path / "checkpoint.previous.pth.tar")["epoch"] == 1


def test_a_new_run_says_what_it_replaces(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"epochs": 1, "training_only": True}
    train(quick_recipe(tmp_path, **settings), images)
    assert "earlier run's" not in capsys.readouterr().out
    train(quick_recipe(tmp_path, **settings, seed=1), images)
    assert (
        f"{tmp_path} holds an earlier run's checkpoints, which this run replaces" in capsys.readouterr().out
    )
    seeds = [read_checkpoint(tmp_path / name)["recipe"]["compute"]["seed"] for name in
             ("checkpoint.pth.tar", "checkpoint.previous.pth.tar")]  # fmt: skip
    assert seeds == [1, 0]
