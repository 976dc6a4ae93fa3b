"""The roofline: its floor, the machine's rates, and every stage measured."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.ceilings import COPY_BYTES, MATRIX_SIDE, Ceilings, measure_ceilings
from benchmarks.commands import main
from benchmarks.work import stage_names
from effnet.models import model_config


def test_the_floor_is_the_larger_of_the_two() -> None:
    ceilings = Ceilings(copy=10.0, matrix=100.0, measured=False)
    assert ceilings.floor(20, 100) == 2
    assert ceilings.floor(20, 400) == 4


def test_ceilings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COPY_BYTES, "cpu", 1 << 20)
    monkeypatch.setitem(MATRIX_SIDE, "cpu", 64)
    ceilings = measure_ceilings(torch.device("cpu"), torch.float32)
    assert ceilings.measured
    assert ceilings.copy > 1e6
    assert ceilings.matrix > 1e6


@pytest.mark.slow
def test_every_stage_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("effnet.kernels.choose.REPEATS", 1)
    monkeypatch.setattr("effnet.kernels.choose.WARMUP", 1)
    monkeypatch.setitem(COPY_BYTES, "cpu", 1 << 20)
    monkeypatch.setitem(MATRIX_SIDE, "cpu", 64)
    file = tmp_path / "roofline.json"
    assert main(["roofline", "--image-size", "32", "-b", "2", "--device", "cpu", "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert set(result["training"]) == {*stage_names(model_config("efficientnet-b0")), "update", "whole"}
    for kind in ("inference", "training"):
        rows = result[kind]
        assert rows["whole"]["floor"] == pytest.approx(
            sum(row["floor"] for stage, row in rows.items() if stage != "whole")
        )
        assert all(row["gap"] == row["measured"] / row["floor"] for row in rows.values() if row["measured"])
    assert {"commit", "command", "cpu", "versions"} <= result["environment"].keys()
    assert "the floor is" in capsys.readouterr().out


def test_given_rates_need_no_machine(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--copy-rate 4300 --matrix-rate 780 --precision bf16 -b 256"
    assert main(["roofline", *flags.split()]) == 0
    assert "measured" not in capsys.readouterr().out
    assert main(["roofline", "--copy-rate", "4300"]) == 2
    assert "go together" in capsys.readouterr().err
