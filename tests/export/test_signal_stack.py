"""OpenVINO's models come and go without taking the process's signal stack along."""

import subprocess
import sys

import pytest

SCRIPT = """
import signal
import openvino
from openvino import opset8 as ops
from effnet.export.openvino import compile_openvino

def model():
    x = ops.parameter([1, 4], name="x")
    return openvino.Model([ops.relu(x)], [x], "relu")

signal.signal(signal.SIGUSR1, lambda number, frame: print("handled"))
first, second = compile_openvino(model()), compile_openvino(model())
del first
del second
signal.raise_signal(signal.SIGUSR1)
"""


def test_a_signal_after_two_models_have_gone() -> None:
    pytest.importorskip("openvino", reason="extra openvino")
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "handled\n"
