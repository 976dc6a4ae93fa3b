"""SIGTERM at random moments of real runs: all end in time, with the documented exit code, and leave no process.

Three moments by default; `EFFNET_INTERRUPTIONS=20 pytest -s tests/test_interruptions.py` is the long form.
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
QUICK = "--image-size 32 --resize 32 --batch-size 2 --device cpu --print-freq 1 --epochs 1000"
TRAIN = ("main.py", "--arch", "efficientnet-lite0")
QUANTIZE = ("quant_main.py", "--arch", "efficientnet-quant-b0", "--from-scratch", "--calib-batches", "3")
RUNS = [(1, TRAIN, 0), (2, TRAIN, 2), (1, TRAIN, 2), (1, QUANTIZE, 2), (2, QUANTIZE, 0)]
if importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali"):
    RUNS += [(processes, (*TRAIN, "--data-backend", "dali-cpu"), 2) for processes in (1, 2)]
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


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
    sent = signal.SIGTERM if number % 2 == 0 else NUMBERS[number % 3]
    process = started(tmp_path, images, number)
    try:
        # Every third run is met before its first step or soon after it, the others while they train.
        if number % 3:
            while not records(tmp_path, "iteration") and process.poll() is None:
                time.sleep(0.02)
        time.sleep(chance.uniform(1, 12) if number % 3 == 0 else chance.uniform(0, 5))
        assert process.poll() is None, (tmp_path / "err").read_text()
        at = time.monotonic()
        process.send_signal(sent)
        code = process.wait(timeout=60)
        seconds = time.monotonic() - at
    finally:
        process.kill()
    err = (tmp_path / "err").read_text()
    steps = records(tmp_path, "iteration")
    print(f"\n{RUNS[number % len(RUNS)]}: {sent.name} after {len(steps)} steps: {code} in {seconds:.1f} s")
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
