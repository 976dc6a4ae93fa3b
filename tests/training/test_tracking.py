"""A tracker that fails, hangs or comes late changes nothing of a training."""

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effnet.cli import main
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.log import RunLog
from effnet.training import tracking
from effnet.training.checkpoint import read_checkpoint
from effnet.training.run import train
from effnet.training.trackers import TrackedRun, Tracker
from effnet.training.trackers.form import Ending, PointKind
from tests.runs import quick_recipe, records
from tests.training.resumed import assert_equal, interrupted


class Kept:
    """A tracker in memory: a connection that can't take points back."""

    where = "memory"

    def __init__(self, run: TrackedRun) -> None:
        self.run = run
        self.identity = run.identity or "first"
        self.steps: list[tuple[str, int]] = []
        self.endings: list[Ending] = []

    def written(self) -> None:
        return None

    def rewind(self, step: int) -> bool:
        return False

    def points(self, kind: PointKind, values: Mapping[str, float], step: int, time: float) -> None:
        self.steps.append((kind, step))

    def picture(self, name: str, pixels: Any) -> None:
        pass

    def confusion(self, matrix: Any, step: int) -> None:
        pass

    def model(self, path: Path) -> None:
        pass

    def close(self, ending: Ending) -> None:
        self.endings.append(ending)


Use = Callable[[type[Kept]], list[Kept]]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Put a tracker in the place of `tensorboard`; returns the list of connections that will be opened."""

    def put(kind: type[Kept]) -> list[Kept]:
        opened: list[Kept] = []

        def open_(run: TrackedRun) -> Kept:
            opened.append(kind(run))
            return opened[-1]

        monkeypatch.setattr(tracking, "TRACKERS", {"tensorboard": Tracker("tensorboard", "", "numpy", open_)})
        return opened

    return put


def recipe(workspace: Path, **changes: Any) -> Recipe:
    return quick_recipe(
        workspace, **{"epochs": 2, "training_only": True, "track": ("tensorboard",), **changes}
    )


@pytest.fixture(scope="module")
def untracked(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    workspace = tmp_path_factory.mktemp("untracked")
    train(recipe(workspace, track=()), images)
    return read_checkpoint(workspace / "checkpoint.pth.tar")["state_dict"]


def assert_trained(workspace: Path, untracked: Any) -> None:
    assert_equal(dict(read_checkpoint(workspace / "checkpoint.pth.tar")["state_dict"]), dict(untracked))


class Failing(Kept):
    def points(self, kind: PointKind, values: Mapping[str, float], step: int, time: float) -> None:
        self.steps.append((kind, step))
        raise OSError(28, "No space left on device")


def test_a_failing_tracker_is_one_warning(
    use: Use, images: Path, tmp_path: Path, untracked: Any, caplog: pytest.LogCaptureFixture
) -> None:
    opened = use(Failing)
    train(recipe(tmp_path), images)
    (message,) = (m for m in caplog.messages if m.startswith("--track"))
    assert "tensorboard: OSError: [Errno 28] No space left on device; the training goes on" in message
    assert len(opened[0].steps) == 3  # then it is left alone
    assert_trained(tmp_path, untracked)


class Hanging(Kept):
    released = threading.Event()

    def points(self, kind: PointKind, values: Mapping[str, float], step: int, time: float) -> None:
        self.released.wait(60)


def test_no_step_waits_for_a_tracker(
    use: Use,
    images: Path,
    tmp_path: Path,
    untracked: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    use(Hanging)
    monkeypatch.setattr(tracking, "_PATIENCE_S", 0.1)
    train(recipe(tmp_path), images)
    assert not Hanging.released.is_set()
    Hanging.released.set()
    assert [m for m in caplog.messages if "tensorboard: has not ended within 0.1 s" in m]
    assert_trained(tmp_path, untracked)


def test_a_run_that_is_stopped_goes_on_with_its_points(use: Use, images: Path, tmp_path: Path) -> None:
    opened = use(Kept)
    stopped = interrupted(recipe(tmp_path, checkpoint_every="1"), images, look=3)
    assert "stopped by SIGTERM" in stopped
    train(recipe(tmp_path, resume="auto"), images)
    first, second = opened
    assert (first.endings, second.endings) == (["interrupted"], ["finished"])
    assert second.run.identity == "first"
    assert first.steps + second.steps == points_of(tmp_path)


def test_a_tracker_that_comes_late_gets_all(use: Use, images: Path, tmp_path: Path) -> None:
    opened = use(Kept)
    train(recipe(tmp_path, track=(), run_epochs=1), images)
    train(recipe(tmp_path, resume="auto"), images)
    assert opened[0].run.identity is None
    assert opened[0].steps == points_of(tmp_path)


def points_of(workspace: Path) -> list[tuple[str, int]]:
    """Kind and step of each point of a log of four batches an epoch."""
    steps = []
    for line in records(workspace, "iteration"):
        steps.append(("iteration", line["epoch"] * 4 + line["step"]))
    steps += [("epoch", (line["epoch"] + 1) * 4) for line in records(workspace, "epoch")]
    steps += [("summary", line["epoch"] * 4) for line in records(workspace, "summary")]
    return sorted(steps, key=lambda point: (point[1], ["iteration", "epoch", "summary"].index(point[0])))


def test_other_processes_follow_nothing(use: Use, tmp_path: Path) -> None:
    opened = use(Kept)
    log = RunLog(None)
    with tracking.Tracking((), log, tmp_path / "report.json", 4, None):
        assert log.follower is None
    assert opened == []


def test_a_missing_package_is_told_before_the_training(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, images: Path, tmp_path: Path
) -> None:
    missing = Tracker("wandb", "", "no_such_package", Kept)
    monkeypatch.setattr(tracking, "TRACKERS", {"wandb": missing})
    assert main(["train", str(images), "--workspace", str(tmp_path), "--track", "wandb"]) == 2
    told = capsys.readouterr().err
    assert "--track wandb needs no_such_package: " in told
    assert "pip install" in told
    # What a tracker has left in the current folder is no package.
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="needs no_such_package"):
        missing.check_installed()


@pytest.mark.parametrize("arguments", [["evaluate", "DIR"], ["quantize", "DIR", "--epochs", "0"]])
def test_a_tracker_needs_a_training(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--track", "wandb"]) == 2
    assert "--track wandb follows a training; here is none" in capsys.readouterr().err


def test_the_picture_has_the_images_in_rows() -> None:
    images = np.arange(9, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2).repeat(3, 3)
    pixels = tracking.grid(images)
    assert pixels.shape == (4, 16, 3)
    assert pixels[0, ::2, 0].tolist() == list(range(8))
    assert pixels[2, ::2, 0].tolist() == [8, *[0] * 7]


def test_a_store_out_of_reach_ends_no_training(
    images: Path,
    tmp_path: Path,
    untracked: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("mlflow", reason="extra mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with caplog.at_level(logging.WARNING):
        train(recipe(tmp_path, track=("mlflow",)), images)
    (message,) = (m for m in caplog.messages if m.startswith("--track"))
    assert "--track mlflow: MlflowException: " in message
    assert_trained(tmp_path, untracked)


def test_a_folder_that_can_t_be_written_ends_no_training(
    images: Path, tmp_path: Path, untracked: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard", reason="extra tensorboard")
    (tmp_path / "tensorboard").write_text("in the way")
    train(recipe(tmp_path), images)
    (message,) = (m for m in caplog.messages if m.startswith("--track"))
    assert "--track tensorboard: " in message
    assert_trained(tmp_path, untracked)
