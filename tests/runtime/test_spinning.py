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
