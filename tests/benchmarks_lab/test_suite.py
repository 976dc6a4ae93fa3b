"""The suite of benchmarks: every part by itself, in the time there is."""

from pathlib import Path

import pytest

from benchmarks import suite
from benchmarks.commands import build_parser, main
from effnet.cli.commands import command_parser

PARTS = {
    "broken": "effnet benchmark train --arch no-such-model",
    "models": "effnet models --json",
}


def test_a_part_that_fails_costs_no_other(tmp_path: Path) -> None:
    broken, models = suite.run_suite(tmp_path / "new" / "out", 5, PARTS)
    assert broken.failure is not None
    assert "no-such-model" in broken.failure
    assert models.failure is None
    assert "efficientnet-b0" in models.output
    page = (tmp_path / "new" / "out" / "README.md").read_text()
    assert "## broken" in page
    assert "efficientnet-b0" in page


def test_no_time_remains(tmp_path: Path) -> None:
    assert [outcome.failure for outcome in suite.run_suite(tmp_path, 0, PARTS)] == [
        "left out: no time remains (--minutes)"
    ] * 2
    (late,) = suite.run_suite(tmp_path, 0.001, {"models": PARTS["models"]})
    assert late.failure == "stopped: the time was up (--minutes)"


def test_a_folder_that_can_not_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["suite", "--out", str(tmp_path / "file" / "out")]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_parts_are_commands(device: str, tmp_path: Path) -> None:
    for name, command in suite.PARTS[device].items():
        program, *arguments = command.format(out=tmp_path, name=name).split()
        if program == "effnet":
            assert callable(command_parser().parse_args(arguments).command)
        else:
            assert arguments[:2] == ["-m", "benchmarks"]
            assert callable(build_parser().parse_args(arguments[2:]).command)
