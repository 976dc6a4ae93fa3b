"""Spinning of OpenMP's threads, as GNU's OpenMP itself tells it when PyTorch loads it."""

import os
import re
import subprocess
import sys

import pytest

SCRIPT = "from effnet.cli import main; main(['models']); import torch"


def told(**given: str) -> dict[str, str]:
    """The settings of the OpenMP library of a process that has run a command."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", **given}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    found = dict(re.findall(r"(\w+) = '(\w+)'", ended.stderr))
    if "GOMP_SPINCOUNT" not in found:
        pytest.skip("PyTorch's OpenMP is not GNU's")
    return found


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "PASSIVE"}, "0")],
)
def test_threads_sleep_soon(given: dict[str, str], expected: str) -> None:
    assert told(**given)["GOMP_SPINCOUNT"] == expected


IMPORTS = """
import os, time, torch
from pathlib import Path
from effnet.runtime.spinning import CoreWatch, is_ours
"""


def run_script(script: str, **given: str) -> list[str]:
    environment = os.environ | {"GOMP_SPINCOUNT": "10000", **given}
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTS + script], env=environment, capture_output=True, text=True, check=True
    )
    return ended.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells how long a thread waits for a core")
def test_other_programs_on_the_cores_are_noticed() -> None:
    script = """
import subprocess, sys
loop = [sys.executable, "-c", "import os, sys\\nwhile os.getppid() == int(sys.argv[1]): pass", str(os.getpid())]
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # so that the loops and this thread surely meet
others = [subprocess.Popen(loop) for _ in range(4)]
watch, end, tensor = CoreWatch(), time.monotonic() + 60, torch.ones(1 << 21)
while not watch.is_crowded and time.monotonic() < end:
    tensor.mul_(1.0)
    watch.look()
print(watch.is_crowded)
for other in others:
    other.kill()
"""
    assert run_script(script) == ["True"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells how long a thread waits for a core")
def test_a_second_team_of_threads_stays_while_the_cores_are_crowded() -> None:
    script = """
import tempfile
torch.set_num_threads(3)
torch.ones(1 << 21).mul_(1.0)
file = Path(tempfile.mkdtemp(), "schedstat")
watch = CoreWatch(file)
waited = 0

def threads_of_this_process():
    return len(os.listdir("/proc/self/task"))

def after(share):
    global waited, last
    time.sleep(1.05)
    now = time.monotonic()
    waited, last = waited + share * (now - last), now
    file.write_text(f"0 {int(waited * 1e9)} 0")
    changed = watch.look()
    time.sleep(0.5)
    return changed, watch.is_crowded, threads_of_this_process()

file.write_text("0 0 0")
watch.look()
last = time.monotonic()
before = threads_of_this_process()
for share in (0.1, 0.4, 0.1, 0.0):
    changed, crowded, threads = after(share)
    print(changed, crowded, threads - before)
"""
    assert run_script(script) == [
        *("False", "False", "0"),
        *("True", "True", "3"),  # the thread that has the team, and its two others
        *("False", "True", "3"),
        *("True", "False", "0"),
    ]


@pytest.mark.parametrize("given", [{"GOMP_SPINCOUNT": "77"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_a_setting_in_the_environment_holds_in_a_crowd_too(given: dict[str, str]) -> None:
    script = """
import tempfile
file = Path(tempfile.mkdtemp(), "schedstat")
file.write_text("0 0 0")
watch = CoreWatch(file)
watch.look()
file.write_text("0 900000000 0")
time.sleep(1.05)
print(watch.look(), is_ours())
"""
    assert run_script(script, **given) == ["False", "False"]
