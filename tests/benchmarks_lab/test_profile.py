"""The profile of kernels: counts of calls, and the order of what is reported."""

import json
from pathlib import Path

import pytest
from torch import nn

from benchmarks.commands import main
from effnet.models import build_model


def test_calls_are_those_of_the_model_s_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "profile.json"
    flags = "profile -a efficientnet-lite0 --image-size 32 -b 2 --device cpu --kernels torch --steps 2 --most 1000"
    assert main([*flags.split(), "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in build_model("efficientnet-lite0").modules())
    calls = {
        kind: {kernel["name"]: kernel["calls"] for kernel in result[kind]["kernels"]}
        for kind in ("training", "inference")
    }
    assert calls["training"]["aten::native_batch_norm_backward"] == norms
    assert calls["inference"]["aten::batch_norm"] == norms
    assert "aten::native_batch_norm_backward" not in calls["inference"]
    for kind in ("training", "inference"):
        shares = [kernel["share"] for kernel in result[kind]["kernels"]]
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
        times = sum(kernel["milliseconds"] for kernel in result[kind]["kernels"])
        assert times == pytest.approx(result[kind]["milliseconds"])
    assert "ms a step" in capsys.readouterr().out
