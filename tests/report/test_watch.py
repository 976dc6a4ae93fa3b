"""`effnet watch`: trainings followed on a terminal."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from effnet.cli import main
from effnet.report.runs import read_runs
from effnet.report.sparkline import ASCII, BLOCKS, sparkline
from effnet.report.terminal import duration, seconds_left, share_done, view, view_without_log
from effnet.runtime.lock import holder
from tests.doctor.environments import variables
from tests.runs import records
from tests.terminal import on_terminal

QUICK = ["-a", "efficientnet-lite0", "--image-size", "32", "-b", "12", "--workers", "0", "--device", "cpu"]


def training(images: Path, workspace: Path, epochs: int, *flags: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "effnet", "train", str(images), *QUICK, *flags]
    command += ["--epochs", str(epochs), "--workspace", str(workspace), "--print-freq", "1"]
    return subprocess.Popen(command, env=variables(), stdout=subprocess.DEVNULL)


def wait_for_epochs(workspace: Path, count: int) -> None:
    while len(records(workspace, "epoch")) < count:
        time.sleep(0.05)


def write_log(workspace: Path, *, epochs: int = 3, of: int = 10, steps: int = 0, **metrics: float) -> Path:
    """The log of a run that has finished some epochs, and some steps of the next."""
    workspace.mkdir(parents=True)
    recipe = {
        "model": {"arch": "efficientnet-b0"},
        "optimizer": {"batch_size": 10},
        "schedule": {"epochs": of},
        "run": {"evaluate": False},
    }
    facts = {"device": "cpu", "world_size": 2, "train_images": 1000, "val_images": 100}
    lines: list[dict[str, Any]] = [{"type": "parameters", "data": {"recipe": recipe, **facts}}]
    for epoch in range(epochs):
        data = {"train.loss": 2.0 - epoch / 10, "val.top1": 50.0 + epoch, **metrics}
        lines.append({"type": "epoch", "epoch": epoch, "step": 50, "data": data})
    if steps:
        data = {"train.loss": 1.0, "train.lr": 0.1, "train.total_ips": 100.0}
        lines.append({"type": "iteration", "epoch": epochs, "step": steps, "data": data})
    text = "\n".join(json.dumps({"time": 0.0, "epoch": None, "step": None, **line}) for line in lines)
    (workspace / "report.json").write_text(text + "\n")
    return workspace


@pytest.mark.parametrize(
    ("values", "width", "curve"),
    [
        ([], 10, ""),
        ([None, float("nan")], 10, ""),
        ([0, 1, 2, 3, 4, 5, 6, 7], 10, "▁▂▃▄▅▆▇█"),
        ([5.0, 5.0], 10, "▅▅"),
        ([0, None, 7], 10, "▁ █"),
        ([0, 0, 7, 7], 2, "▁█"),
        ([0, float("inf"), 7, 7], 2, "▁█"),
        (list(range(400)), 4, "▁▃▆█"),
    ],
)
def test_curves(values: list[float | None], width: int, curve: str) -> None:
    assert sparkline(values, width) == curve
    assert len(sparkline(values, width, ASCII)) == len(curve)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (3600, "1 h 0 min"), (90_000, "1 d 1 h"), (86_399, "23 h 59 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_how_much_is_done_and_left(tmp_path: Path) -> None:
    (run,) = read_runs([write_log(tmp_path / "run", steps=25, **{"val.total_ips": 50.0})], may_begin=True)
    # 1000 images in steps of 20, and 100 to validate; three and a half of ten epochs are done.
    assert share_done(run) == pytest.approx(0.35)
    assert seconds_left(run) == pytest.approx(6.5 * (1000 / 100 + 100 / 50))


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("levels", [BLOCKS, ASCII])
def test_lines_fit(tmp_path: Path, width: int, levels: str) -> None:
    (run,) = read_runs([write_log(tmp_path / ("long" * 30), epochs=400, of=500, steps=3)], may_begin=True)
    lines = list(view(run, "running", "running, epoch 401/500 step 3/50", width=width, levels=levels))
    assert max(map(len, lines)) <= width
    assert any("top-1" in line and "449.00 %" in line for line in lines)
    assert levels != ASCII or all(line.isascii() for line in lines)


def test_a_long_name_leaves_its_state() -> None:
    place = "/long" * 40
    lines = list(view_without_log(place, f"waiting for its log ({place}: no log)", width=80))
    assert max(map(len, lines)) <= 80
    assert "waiting for its log" in lines[1]


@pytest.mark.slow
def test_a_training_is_followed_from_before_its_log_to_its_end(images: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "run"
    command = [sys.executable, "-m", "effnet", "watch", str(workspace), "--every", "0.2"]
    with on_terminal(command, {**variables(), "PYTHONIOENCODING": "utf-8"}) as terminal:
        terminal.until("waiting for its log")
        with training(images, workspace, 2) as process:
            assert terminal.rest() == 0
    assert process.returncode == 0
    plain = terminal.plain()
    assert max(len(line) for line in plain.split("\n")) <= 80
    assert "running, epoch" in plain
    assert re.search(r"top-1 +\d+\.\d\d %", plain)
    assert re.search(r"train loss +\d\.\d{4}  [▁▂▃▄▅▆▇█]{2} ", plain)
    assert "finished after 2 epochs" in plain
    last = records(workspace, "epoch")[-1]["data"]
    assert f"{last['val.top1']:.2f} %" in plain.rpartition("finished after")[2]


@pytest.fixture(scope="module")
def killed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The workspace of a training that was killed in its second epoch, and what `--once` said while it ran."""
    workspace = tmp_path_factory.mktemp("killed") / "run"
    with training(images, workspace, 1000) as process:
        wait_for_epochs(workspace, 1)
        command = [sys.executable, "-m", "effnet", "watch", str(workspace), "--once"]
        done = subprocess.run(command, env=variables(), capture_output=True, text=True, check=True)
        held = holder(workspace)
        assert held is not None
        assert (held.process, held.lives) == (process.pid, True)
        process.send_signal(signal.SIGKILL)
    return workspace, done.stdout.splitlines()


@pytest.mark.slow
def test_a_running_training_once(killed: tuple[Path, list[str]]) -> None:
    _, lines = killed
    assert "efficientnet-lite0, cpu, 36 images" in lines[0]
    assert re.match(r"  running, epoch \d+/1000", lines[1])
    assert "left, until" in lines[2]
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)


@pytest.mark.slow
def test_a_killed_training_is_told(
    killed: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, _ = killed
    held = holder(workspace)
    assert held is not None
    assert not held.lives
    other = write_log(tmp_path / "other", epochs=2)
    assert main(["watch", str(workspace), str(other), "--once"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert f"killed: process {held.process} ended without a word in epoch" in text
    assert "--resume auto goes on" in text
    assert "stopped before its end, in epoch 3/10" in text  # the other one, which left no lock


def test_without_a_terminal_each_epoch_gets_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = write_log(tmp_path / "run", epochs=1)
    assert main(["watch", str(workspace)]) == 1  # it has stopped
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("run: stopped before its end, in epoch 2/10")
    assert line.endswith("train loss 2.0000, top-1 50.00 %")


def test_a_terminal_without_blocks(tmp_path: Path) -> None:
    workspace = write_log(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", "effnet", "watch", str(workspace), "--once"],
        env=variables(PYTHONIOENCODING="ascii"),
        capture_output=True,
    )
    assert done.returncode == 1
    assert b"@=_" in done.stdout
    assert done.stdout.isascii()


def test_ctrl_c_ends_the_view_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "effnet", "watch", str(tmp_path / "nothing")]
    with on_terminal(command, variables()) as terminal:
        terminal.until("waiting for its log")
        os.killpg(terminal.process.pid, signal.SIGINT)
        assert terminal.rest() == 0


@pytest.mark.parametrize("name", ["nothing", "run/report.jsn"])
def test_no_log(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    write_log(tmp_path / "run")
    assert main(["watch", str(tmp_path / name), "--once"]) == 2
    assert name in capsys.readouterr().err
