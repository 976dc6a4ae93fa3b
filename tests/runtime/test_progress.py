import io
import os
import sys

import pytest
from rich.console import Console

from effnet.runtime.progress import ProgressBar


def drawn(*, in_bytes: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with ProgressBar("packing", 40_000, done=10_000, in_bytes=in_bytes, console=console) as progress:
        progress.advance(5_000)
        progress.update(description="packing val", state="3 left out")
        progress.advance(5_000)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_a_bar_shows() -> None:
    assert "packing val" in drawn()
    assert "20000/40000" in drawn()
    assert "3 left out" in drawn()
    assert "20.0/40.0 kB" in drawn(in_bytes=True)


def test_an_amount_replaces_the_one_before() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with ProgressBar("epoch 1/2", 9, console=console) as progress:
        progress.update(7)
        progress.update(8, state="loss 1.0")
    assert isinstance(console.file, io.StringIO)
    assert "8/9" in console.file.getvalue()


class Terminal(io.StringIO):
    """A stream that says of itself to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("is_terminal", "show"), [(False, True), (True, False)])
def test_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, show: bool) -> None:
    stream = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressBar("checking", 3, show=show) as progress:
        progress.advance(3)
        progress.update(3, state="done")
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(os, "environ", {**os.environ, "TERM": "xterm"})
    with ProgressBar("checking", 3) as progress:
        progress.advance(2)
    assert "checking" in stream.getvalue()
