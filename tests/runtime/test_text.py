"""Names that others wrote, on a terminal and in JSON."""

import json
import logging
import math
import os

import pytest

from effnet.cli.messages import say, say_error, shown_log
from effnet.runtime.log import RunLog
from effnet.runtime.progress import ProgressBar
from effnet.runtime.text import printable, to_json

NAMES = {
    "plain ä 日本 👩‍👧": "plain ä 日本 👩‍👧",
    "\x1b[31mred": r"\x1b[31mred",
    "\x9b31m": r"\x9b31m",
    "\x1b]8;;x\x1b\\l\x07": r"\x1b]8;;x\x1b\l\x07",
    "two\nlines\r\tand a tab": r"two\nlines\r\tand a tab",
    "\u2028line\u2029\x85": r"\u2028line\u2029\x85",
    "\u202egpj.exe\u2066": r"\u202egpj.exe\u2066",
    os.fsdecode(b"\xff\x80.jpg"): r"\xff\x80.jpg",
    "\ud800": r"\ud800",
    "[/nope] [bold]q :cat:": "[/nope] [bold]q :cat:",
    "nul\0": r"nul\x00",
}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_terminal_has_nothing_to_obey(
    name: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest-xdist can't pass on a record with bytes that are not UTF-8.
    monkeypatch.setattr(logging.getLogger("effnet"), "propagate", False)
    assert printable(name) == NAMES[name]
    say(name)
    say_error("effnet", name)
    with shown_log():
        logging.getLogger("effnet.it").warning("about %s", name)
    with RunLog(None) as log:
        log.print(name)
        log.bad_images("val", {name: "broken"})
    captured = capfd.readouterr()
    assert captured.out.splitlines() == [NAMES[name], NAMES[name], f"val: left out {NAMES[name]}: broken"]
    assert captured.err.splitlines() == [f"effnet: error: {NAMES[name]}", f"about {NAMES[name]}"]


def test_a_progress_bar_takes_any_name() -> None:
    from rich.console import Console

    console = Console(force_terminal=True, width=120, color_system=None)
    with console.capture() as captured, ProgressBar("train/[/nope]\x1b[31m", 3, console=console) as bar:
        bar.update(1, description="val/[bold]\n\x9b", state="[/x]")
    assert r"val/[bold]\n\x9b" in captured.get()
    assert "[/x]" in captured.get()


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_json_restores_a_name_exactly(name: str) -> None:
    text = to_json({name: [name]})
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text) == {name: [name]}


def test_json_has_no_numbers_that_json_lacks() -> None:
    value = {"a": math.nan, "b": [1.5, math.inf, {"c": (-math.inf, True, None)}]}
    assert json.loads(to_json(value)) == {"a": "nan", "b": [1.5, "inf", {"c": ["-inf", True, None]}]}
    assert to_json({"a": 1}, indent=1) == '{\n "a": 1\n}'
