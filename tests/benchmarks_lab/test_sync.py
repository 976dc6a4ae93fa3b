"""Processes on the same cores, beside the model."""

import json
import time
from pathlib import Path

import pytest

from benchmarks import sync
from benchmarks.commands import main
from benchmarks.sync import Plan, benchmark_sync, predict
from effnet.runtime.errors import UserError


def test_predictions_by_hand() -> None:
    measured = {"compute": 0.2, "jitter": 0.1, "sum": 0.022, "number": 0.001}
    # Two buckets of 1,000,000 bytes: 2 rounds of 0.5 ms each and 2 / 2 of the bytes at 100 MB/s of a process.
    sizes = [1_000_000, 1_000_000]
    same = predict(measured, 2, 2, sizes)
    assert same["sum"] == pytest.approx(0.022)
    assert same["compute"] == pytest.approx(0.2)
    eight = predict(measured, 2, 8, sizes)
    # The machine sums 200 MB/s for 8 processes: 25 MB/s each, 2 * 7 / 8 of the bytes, and 6 rounds for each bucket.
    assert eight["sum"] == pytest.approx(2e6 * 1.75 / 25e6 + 2 * 6 * 0.0005)
    assert eight["compute"] == pytest.approx(0.8)
    assert eight["wait"] == pytest.approx(0.8 * 0.1 * 1.42, rel=0.02)  # the largest of 8 normal variables
    assert eight["step"] == pytest.approx(sum(eight[name] for name in ("compute", "wait", "sum")))


@pytest.mark.slow
def test_processes_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sync.json"
    assert main(["sync", "--processes", "3", "2", "--rounds", "2", "--json", str(out)]) == 0
    two, three = json.loads(out.read_text())["rows"]
    assert (two["processes"], three["processes"]) == (2, 3)
    assert three["predicted"]["compute"] == pytest.approx(1.5 * two["measured"]["compute"])
    for row in (two, three):
        assert all(value > 0 for value in row["measured"].values())
        assert row["measured"]["step"] > row["measured"]["sum"] / 2
    assert "|     3     |" in capsys.readouterr().out


def test_a_failure_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "layers", lambda arch: ())
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"a process failed: .*efficientnet-none"):
        benchmark_sync(Plan(processes=(2,), arch="efficientnet-none"))
    assert time.monotonic() - begun < 120
