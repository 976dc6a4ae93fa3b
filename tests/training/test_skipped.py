"""Skipped steps are seen in the log, in the loss scale and in the end of the run."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.cli import main
from effnet.runtime.errors import UserError
from effnet.runtime.log import RunLog
from effnet.runtime.processes import Processes
from effnet.training.evidence import EvidenceFinder
from effnet.training.run import train
from effnet.training.skipped import SkippedSteps, Trained, TrainedBatch, read_back
from tests.runs import quick_recipe, records

LIMIT = 4
ALONE = Processes.alone(torch.device("cpu"))
BIG = 1e30  # gradients of a loss that is scaled by this overflow in FP16


def overflowing(workspace: Path, data: Path, *flags: str) -> int:
    """Exit code of a training in FP16, with a limit of four skipped steps."""
    quick = "-a efficientnet-lite0 --image-size 32 -b 8 --epochs 3 -j 0 --device cpu --precision fp16 -p 2"
    limits = ["--max-bad-steps", str(LIMIT), "--use-ema", "0.9"]
    return main(["train", *quick.split(), "--workspace", str(workspace), *limits, *flags, str(data)])


@pytest.mark.parametrize(("flag", "halves"), [("--initial-loss-scale", True), ("--static-loss-scale", False)])
def test_a_loss_scale_that_overflows_ends_the_run(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, halves: bool
) -> None:
    assert overflowing(tmp_path, images, flag, str(BIG)) == 2
    printed = capsys.readouterr()
    assert "epoch 1 step 2: 2 of the last 2 steps left out, as a gradient was not finite" in printed.out
    (line,) = [line for line in printed.err.splitlines() if "--max-bad-steps" in line]
    assert "epoch 1 step 4: the loss or a gradient was not finite in 4 steps in a row" in line

    lines = [record["data"] for record in records(tmp_path, "iteration")]
    assert [line["train.skipped_steps"] for line in lines] == [2, 2]
    assert all(math.isfinite(line["train.loss"]) for line in lines)
    scales = [BIG / 4, BIG / 16] if halves else [BIG, BIG]
    assert [line["train.grad_scale"] for line in lines] == pytest.approx(scales, rel=1e-6)
    events = [record["data"] for record in records(tmp_path, "event")]
    assert [event["steps"] for event in events if event["event"] == "skipped steps"] == [[1, 2], [3, 4]]


def test_an_epoch_of_overflow_leaves_the_weights_and_lowers_the_scale(images: Path, tmp_path: Path) -> None:
    recipe = quick_recipe(tmp_path, precision="fp16", initial_loss_scale=2.0**26, use_ema=0.9, epochs=1)
    metrics = train(recipe.replace({"training_only": True}), images)
    assert (metrics["train.skipped_steps"], metrics["train.grad_scale"]) == (4, 2.0**22)
    checkpoint = torch.load(tmp_path / "checkpoint.pth.tar", weights_only=True)
    progress = checkpoint["progress"]
    assert [progress[name] for name in ("step", "skipped_steps", "bad_steps")] == [4, 4, 4]
    assert checkpoint["loss_scaler"]["scale"] == 2.0**22
    # The average has followed nothing, so it still is the start.
    for key, value in checkpoint["state_dict_ema"].items():
        if "bn" not in key:
            assert torch.equal(checkpoint["state_dict"][key], value), key


def test_a_run_without_scaling_counts_too_and_names_no_scale(images: Path, tmp_path: Path) -> None:
    metrics = train(quick_recipe(tmp_path, epochs=1, training_only=True), images)
    assert metrics["train.skipped_steps"] == 0
    assert "train.grad_scale" not in metrics


def watch(taken: list[bool | None], losses: dict[int, float] | None = None, **settings: Any) -> int:
    batches = [TrainedBatch(n, (losses or {}).get(n, 1.0), flag) for n, flag in enumerate(taken, start=1)]
    before = settings.pop("in_a_row", 0)
    finder = EvidenceFinder(ALONE, 0, None)
    return SkippedSteps(RunLog(None), LIMIT, finder).watch(batches, before, epoch=0, loss_scale=None)


def test_steps_are_counted_in_a_row() -> None:
    assert watch([False, False, True, False]) == 1
    assert watch([False, False], in_a_row=1) == 3
    # Batches that only accumulate are no steps.
    assert watch([None, False, None, False, None]) == 2
    assert watch([True, True, True], {3: math.inf}) == 1
    with pytest.raises(UserError, match="epoch 1 step 2: .* in 4 steps in a row"):
        watch([False, False, True], in_a_row=2)


def test_results_are_read_back_in_order() -> None:
    flags = [None, torch.tensor(True), None, torch.tensor(False)]
    trained = [Trained(torch.tensor(float(n)), torch.tensor(0.0), flag) for n, flag in enumerate(flags)]
    batches = read_back(trained, ALONE, last=10)
    assert [batch.number for batch in batches] == [7, 8, 9, 10]
    assert [batch.loss for batch in batches] == [0.0, 1.0, 2.0, 3.0]
    assert [batch.taken for batch in batches] == [None, True, None, False]
    assert [batch.is_skipped for batch in batches] == [False, False, False, True]
