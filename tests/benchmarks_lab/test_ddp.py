"""Overhead of DDP against the same step without it."""

import json
from pathlib import Path

import pytest

from benchmarks.commands import main


def test_cost_of_ddp_here(tmp_path: Path) -> None:
    out = tmp_path / "ddp.json"
    quick = (
        "--arch efficientnet-lite0 --image-size 32 --batch-size 2 --device cpu --rounds 2 --steps 1 --json"
    )
    assert main(["scaling", *quick.split(), str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["rounds"].keys() == {"alone", "DDP"}
    assert all(rate > 0 for rates in result["rounds"].values() for rate in rates)
    alone, ddp = result["rounds"].values()
    assert result["overhead"] == pytest.approx(
        sum(one / other for one, other in zip(alone, ddp, strict=True)) / 2 - 1
    )
