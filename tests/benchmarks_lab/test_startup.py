"""The measurement of start-up and memory: figures beside known ones, its list beside the commands that there are."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

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


@pytest.mark.slow
def test_times_of_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("timm")
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (64, 48), "teal").save(photo)
    chosen = ("import torch", "effnet classify, 2", "timm, 2", FIRST_STEP)
    honest = startup.processes
    monkeypatch.setattr(startup, "processes", lambda *given: {name: honest(*given)[name] for name in chosen})
    out = tmp_path / "startup.json"
    flags = ["--rounds", "1", "--photographs", "2", "--times-only", "--json", str(out)]
    assert main(["startup", str(photo), *flags]) == 0
    times = json.loads(out.read_text())["times"]
    assert times.keys() == set(chosen)
    for name in chosen[1:]:
        assert times[name]["memory"] > 0
        assert f"| {name} " in capsys.readouterr().out or name != chosen[1]
