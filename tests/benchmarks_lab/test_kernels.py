"""The kernels' benchmark: its form, on the CPU's reference implementations; its figures need a GPU."""

import pytest
import torch

from benchmarks.ceilings import Ceilings
from benchmarks.commands import main
from benchmarks.kernels import kernel_rows, print_table
from effnet.kernels.choose import Workload


def test_a_machine_without_a_gpu_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "needs a CUDA GPU" in error
    assert error.count("\n") == 1


def test_rows_of_a_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("effnet.kernels.choose.REPEATS", 1)
    monkeypatch.setattr("effnet.kernels.choose.WARMUP", 1)
    workload = Workload(batch_size=2, image_size=32, dtype=torch.bfloat16, compiled=False)
    rows = kernel_rows("efficientnet-b0", workload, torch.device("cpu"), Ceilings(1e9, 1e9, measured=False))
    row = rows["2x96x16x16 3x3/2 symmetric SiLU"]
    assert row["bytes_forward"] == 2 * (16 * 16 + 8 * 8) * 96 * 2
    assert row["bytes_backward"] == 2 * row["bytes_forward"]
    assert row["share_of_copy_forward"] == pytest.approx(
        row["bytes_forward"] / (row["kernel_forward"] / 1000) / 1e9
    )
    assert "2x32x16x16 3x3/1 symmetric SiLU, input as it is" in rows
    result = {
        "arch": "efficientnet-b0",
        "image_size": 32,
        "batch_size": 2,
        "precision": "bf16",
        "compiled": False,
        "ceilings": {"copy": 1e9},
        "rows": rows,
    }
    print_table(result)
    assert "2x96x16x16" in capsys.readouterr().out
