"""Training runs of two processes are killed and resumed: the short form of `python -m benchmarks survival`."""

from pathlib import Path

import pytest
import torch

from benchmarks.survival import Kill, Scenario, Survival, differences, logged
from tests.test_launchers import REPOSITORY

KILLS = 3
MODEL = "--arch efficientnet-lite0 --image-size 32 --resize 32 --dropout 0.2 --survival-prob 0.8 --mixup 0.2"
COURSE = "--batch-size 2 --epochs 2 --warmup 0 --lr 0.001 --use-ema 0.9 --workers 1"


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(900)
def test_killed_runs_end_as_if_nothing_had_happened(images: Path, tmp_path: Path) -> None:
    arguments = (str(REPOSITORY / "main.py"), str(images), *MODEL.split(), *COURSE.split())
    survival = Survival(Scenario("short", arguments, checkpoint_every=4), tmp_path)
    kills = list(survival.kills(KILLS))
    assert all(kill.survived for kill in kills), kills
    assert {kill.victim for kill in kills} == {"launcher", "rank", "all"}
    assert any(kill.while_writing for kill in kills)


def test_differences_are_found() -> None:
    one = {"state_dict": {"a": torch.tensor([1.0])}, "progress": {"step": 3}, "digest": "x"}
    assert differences(one, {**one, "digest": "y"}) == []
    last_bit = torch.nextafter(torch.tensor([1.0]), torch.tensor([2.0]))
    assert differences(one, {**one, "state_dict": {"a": last_bit}}) == ["state_dict.a"]
    assert differences(one, {**one, "progress": {"step": 3.0}}) == ["progress.step"]
    assert differences({**one, "more": [1]}, one) == ["more[0]"]
    metrics = {"metrics": {"val.top1": 50.0, "val.total_ips": 3.0}}
    assert differences(metrics, {"metrics": {"val.top1": 50.1, "val.total_ips": 9.0}}) == ["metrics.val.top1"]


def test_a_step_logged_twice_is_seen(tmp_path: Path) -> None:
    line = '{"type": "iteration", "epoch": 0, "step": 1, "data": {"train.loss": 2.0, "train.total_ips": 9}}\n'
    (tmp_path / "report.json").write_text(line + line + '{"type": "iter')
    assert logged(tmp_path) == {"iteration 0 1": [{"train.loss": 2.0}] * 2}


def test_a_kill_that_left_a_process_was_not_survived() -> None:
    kill = Kill("rank", 3, False, loadable=True, lost=1, left=1, resumed_code=0, differences=())
    assert not kill.survived
