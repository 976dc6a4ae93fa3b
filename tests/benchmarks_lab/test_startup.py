"""The measurement of start-up and memory: figures beside known ones, its list beside the commands that there are."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks import startup
from benchmarks.commands import main
from benchmarks.startup import BASE, COMMANDS, FIRST_STEP, NOT_MEASURED, processes, run_once
from effnet.cli.commands import command_parser
from effnet.runtime.errors import UserError

PLACES = dict.fromkeys(("data", "out", "run", "many", "few", "one", "photo", "recipe"), "x")


def test_every_command_is_measured_or_has_a_reason() -> None:
    parser = command_parser()
    (commands,) = (
        action.choices for action in parser._actions if action.choices and "train" in action.choices
    )
    measured = {name.split()[0] for name in COMMANDS if name != "help"}
    assert measured | NOT_MEASURED.keys() == set(commands or ())
    assert not measured & NOT_MEASURED.keys()
    for name, arguments in COMMANDS.items():
        if name != "help":
            parser.parse_args([word.format(**PLACES) for word in arguments.split()])


def test_memory_and_time_of_a_process() -> None:
    program = "import time; whole = bytearray(200 << 20); time.sleep(0.3)"
    cost = run_once([sys.executable, "-c", program])
    small = run_once([sys.executable, "-c", "pass"])
    assert cost.seconds > 0.3
    assert cost.memory - small.memory > 190 << 20
    assert cost.processor > 0


def test_a_training_is_ended_at_its_first_step(tmp_path: Path) -> None:
    log = tmp_path / "report.json"
    program = """
import json, sys, time
log = open(sys.argv[1], "w")
for kind, seconds in (("parameters", 0.2), ("iteration", 600)):
    print(json.dumps({"type": kind, "time": time.time(), "data": {}}), file=log, flush=True)
    time.sleep(seconds)
"""
    cost = run_once([sys.executable, "-c", program, str(log)], log)
    assert 0.2 < cost.seconds < 300


def test_a_process_that_fails_is_named() -> None:
    with pytest.raises(UserError, match="exit code 3: no luck"):
        run_once([sys.executable, "-c", "import sys; print('no luck', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(UserError, match="exit code 3"):
        run_once([sys.executable, "-c", "import sys; sys.exit(3)"], Path("no log"))


def test_the_processes_are_told_apart() -> None:
    names = list(processes(PLACES, 1000))
    assert names[0] == BASE
    assert names[-1] == FIRST_STEP
    assert {"effnet classify, 1", "timm, 1", "effnet classify, 1000", "timm, 1000"} < set(names)


def test_times_of_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With small programs in the place of the real ones, which take minutes."""
    program = """
import json, os, sys, time
os.makedirs(sys.argv[1])
with open(sys.argv[1] + "/report.json", "w") as log:
    print(json.dumps({"type": "iteration", "time": time.time(), "data": {}}), file=log, flush=True)
    time.sleep(600)
"""

    def small(places: Mapping[str, str], many: int) -> dict[str, tuple[str, ...]]:
        first = (sys.executable, "-c", program, places["out"] + "/first-step")
        return {BASE: (sys.executable, "-c", "pass"), FIRST_STEP: first}

    monkeypatch.setattr(startup, "processes", small)
    monkeypatch.setattr(startup, "_prepared", lambda _plan, folder: {"out": str(folder / "out")})
    monkeypatch.setattr(startup, "_EFFNET", (sys.executable, "-c", "pass"))
    monkeypatch.setattr(startup, "COMMANDS", {"train": "{out}"})
    photo, out = tmp_path / "photo.jpg", tmp_path / "startup.json"
    assert main(["startup", str(photo)]) == 2
    assert "no such file" in capsys.readouterr().err
    photo.touch()
    assert main(["startup", str(photo), "--rounds", "2", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["times"].keys() == {BASE, FIRST_STEP}
    assert len(result["times"][FIRST_STEP]["rounds"]) == 2
    assert result["memory"].keys() == {BASE, "effnet train"}
    shown = capsys.readouterr().out
    assert FIRST_STEP in shown
    assert "effnet train" in shown
