"""A long run takes no more memory, descriptors and threads at its end than at its start.

EFFNET_ENDURANCE sets the number of epochs. The figures are printed (`pytest -s`).
"""

import os
import statistics
import subprocess
import sys
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest

from tests.runs import records, write_images

EPOCHS = int(os.environ.get("EFFNET_ENDURANCE", "40"))
WARM_UP = 5  # epochs in which allocators find their size


@dataclass(frozen=True)
class Use:
    """The use of a process and its children: resident memory in MB, open descriptors, threads, processes."""

    memory: float
    descriptors: float
    threads: float
    processes: float


def use_of(process: int) -> Use:
    tree = [process, *descendants(process)]
    rss = threads = descriptors = 0
    for member in tree:
        status = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{member}/status").read_text().splitlines()
            if ":" in line
        )
        rss += int(status["VmRSS"].split()[0])
        threads += int(status["Threads"])
        descriptors += len(os.listdir(f"/proc/{member}/fd"))
    return Use(rss / 1024, descriptors, threads, len(tree))


def descendants(process: int) -> list[int]:
    children = [
        int(child)
        for task in Path(f"/proc/{process}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return children + [found for child in children for found in descendants(child)]


def mean(samples: list[Use]) -> Use:
    return Use(*(statistics.mean(column) for column in zip(*map(astuple, samples), strict=True)))


@pytest.mark.slow
@pytest.mark.soak
def test_a_long_run_does_not_grow(tmp_path: Path) -> None:
    write_images(tmp_path / "images" / "train", dict.fromkeys("abcd", 8))
    write_images(tmp_path / "images" / "val", dict.fromkeys("abcd", 2))
    workspace = tmp_path / "run"
    settings = {"--arch": "efficientnet-lite0", "--image-size": "32", "--batch-size": "16", "--workers": "2"}
    command = [
        *(sys.executable, "-m", "effnet", "train", str(tmp_path / "images"), "--device", "cpu"),
        *(part for setting in settings.items() for part in setting),
        *("--epochs", str(EPOCHS), "--workspace", str(workspace), "--use-ema", "0.99", "--lr", "0.001"),
    ]
    samples: list[Use] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        try:
            while run.poll() is None:
                if len(records(workspace, "epoch")) > len(samples):
                    # Between two epochs the number of processes changes; it is the same in the middle of one.
                    try:
                        samples.append(use_of(run.pid))
                    except (FileNotFoundError, ProcessLookupError, KeyError):
                        continue
                time.sleep(0.01)
        finally:
            run.kill()
    assert run.returncode == 0
    assert len(samples) >= EPOCHS - 2
    usual = statistics.mode(sample.processes for sample in samples)
    samples = [sample for sample in samples[WARM_UP:] if sample.processes == usual]
    part = min(20, len(samples) // 3)
    first, last = mean(samples[:part]), mean(samples[-part:])
    print(f"\n{EPOCHS} epochs, {len(samples)} samples; first {part}: {first}; last {part}: {last}")
    assert last.memory < 1.05 * first.memory + 5
    assert last.descriptors <= first.descriptors + 1
    assert last.threads <= first.threads + 1
