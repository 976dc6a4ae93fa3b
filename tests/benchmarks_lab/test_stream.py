"""A set streamed from a store that is killed, and with damaged images."""

import json
from pathlib import Path

import pytest

from benchmarks.commands import main


@pytest.mark.slow
def test_faults_lose_nothing_but_damaged_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    out = tmp_path / "result.json"
    flags = "--images 5200 --processes 2 --workers 1 --json"
    assert main(["stream", str(tmp_path / "set"), *flags.split(), str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["images_read"] == {"undisturbed": 5200, "restarted": 5200, "damaged": 5197}
    assert result["same_after_restart"]
    assert [bad.rpartition("/")[2] for bad in result["bad"]] == [f"000000.tar: image {n}" for n in range(3)]
    assert len(result["tenths"]) == 10
    assert all(tenth["rate"] > 0 and tenth["memory"] > 0 for tenth in result["tenths"])
    assert list((tmp_path / "set").iterdir()) == []
    assert "same bytes in the same order" in capsys.readouterr().out
