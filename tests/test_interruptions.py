"""Signals at random moments of real runs: all end in time, with the documented exit code, and leave no process.

Three moments by default, one for each signal; `EFFNET_INTERRUPTIONS=20 pytest -s tests/test_interruptions.py` is the
long form, twenty times SIGTERM.
"""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from effnet.runtime.lock import locked
from effnet.training.checkpoint import read_checkpoint
from tests.runs import records
from tests.waiting import lives

REPOSITORY = Path(__file__).resolve().parent.parent
MOMENTS = int(os.environ.get("EFFNET_INTERRUPTIONS", "3"))
IMAGES_PER_CLASS = 12  # of the fixture `images`
QUICK = "--image-size 32 --resize 32 --batch-size 2 --device cpu --print-freq 1 --epochs 1000"
TRAIN = ("main.py", "--arch", "efficientnet-lite0")
QUANTIZE = ("quant_main.py", "--arch", "efficientnet-quant-b0", "--from-scratch", "--calib-batches", "3")
RUNS = [(1, TRAIN, 0), (2, TRAIN, 2), (1, TRAIN, 2), (1, QUANTIZE, 2), (2, QUANTIZE, 0)]
if importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali"):
    RUNS += [(processes, (*TRAIN, "--data-backend", "dali-cpu"), 2) for processes in (1, 2)]
NUMBERS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT) if MOMENTS == 3 else (signal.SIGTERM,)


def is_starting(_workspace: Path, _steps: int) -> bool:
    return True


def is_preparing(workspace: Path, _steps: int) -> bool:
    """Images are checked, and a quantized model is calibrated."""
    return bool(records(workspace, "parameters"))


def is_training(workspace: Path, _steps: int) -> bool:
    return bool(records(workspace, "iteration"))


def is_validating(workspace: Path, steps: int) -> bool:
    """All steps of an epoch are reported, and the epoch is not."""
    reported = records(workspace, "iteration")
    finished = len(records(workspace, "epoch"))
    return bool(reported) and (reported[-1]["epoch"], reported[-1]["step"]) == (finished, steps)


def is_writing(workspace: Path, steps: int) -> bool:
    return is_training(workspace, steps) and any(
        path.name.endswith(".pth.tar") for path in workspace.glob(".effnet-*")
    )


PHASES = (is_starting, is_training, is_validating, is_preparing, is_writing)
PAUSES = {is_starting: 8.0, is_training: 5.0, is_preparing: 1.0, is_validating: 0.2, is_writing: 0.02}
"""seconds at most from the beginning of a phase to the signal"""


def processes_of(workspace: Path) -> list[int]:
    """Return the processes whose command line names a workspace: launchers, ranks and workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(workspace) in words and lives(int(folder.name)):
            found.append(int(folder.name))
    return found


def started(workspace: Path, images: Path, run: int) -> "subprocess.Popen[bytes]":
    processes, (script, *flags), workers = RUNS[run % len(RUNS)]
    launcher = [str(REPOSITORY / "multiproc.py"), "--nproc_per_node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, str(REPOSITORY / script), str(images), *QUICK.split(), *flags]
    command += ["--workers", str(workers), "--workspace", str(workspace)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "src")}
    with (workspace / "out").open("w") as out, (workspace / "err").open("w") as err:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=err, start_new_session=True)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(MOMENTS))
def test_a_signal_at_a_random_moment(number: int, images: Path, tmp_path: Path) -> None:
    chance = random.Random(number)
    sent, phase = NUMBERS[number % len(NUMBERS)], PHASES[number % len(PHASES)]
    steps_per_epoch = 3 * IMAGES_PER_CLASS // (2 * RUNS[number % len(RUNS)][0])
    process = started(tmp_path, images, number)
    try:
        while not phase(tmp_path, steps_per_epoch) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, PAUSES[phase]))
        assert process.poll() is None, (tmp_path / "err").read_text()
        at = time.monotonic()
        process.send_signal(sent)
        code = process.wait(timeout=60)
        seconds = time.monotonic() - at
    finally:
        process.kill()
    err = (tmp_path / "err").read_text()
    steps = records(tmp_path, "iteration")
    told = f"{sent.name} after {len(steps)} steps: {code} in {seconds:.1f} s"
    print(f"\n{RUNS[number % len(RUNS)]}, {phase.__name__}: {told}")
    assert code in (128 + sent, -sent if not steps else 128 + sent), err
    assert seconds < 10, err
    assert "Traceback" not in err
    assert processes_of(tmp_path) == []
    with locked(tmp_path):
        pass
    if steps and (tmp_path / "checkpoint.pth.tar").exists():
        # The latest step that was reported is in the checkpoint, and it is the last one.
        progress = read_checkpoint(tmp_path / "checkpoint.pth.tar")["progress"]
        assert progress["step"] == trained(steps)
    else:
        assert not steps


def trained(steps: list[dict[str, object]]) -> int:
    """Return the steps of a run whose every step is reported."""
    return len({(step["epoch"], step["step"]) for step in steps})
