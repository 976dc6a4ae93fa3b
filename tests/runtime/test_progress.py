import io
import os
import sys
import threading

import pytest
from rich.console import Console

from effnet.runtime.progress import ProgressBar, silent, working
from tests.terminal import FakeTerminal, fake_terminal


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


@pytest.mark.parametrize(("is_terminal", "show"), [(False, True), (True, False)])
def test_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch, is_terminal: bool, show: bool) -> None:
    stream = FakeTerminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressBar("checking", 3, show=show) as progress:
        progress.advance(3)
        progress.update(3, state="done")
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(os, "environ", {**os.environ, "TERM": "xterm"})
    with ProgressBar("checking", 3) as progress:
        progress.advance(2)
    assert "checking" in stream.getvalue()


def test_work_of_unknown_amount_shows_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = fake_terminal(monkeypatch)
    with working("loading"):
        pass
    assert "loading" in terminal.getvalue()
    assert "0:00:00" in terminal.getvalue()
    assert "0/" not in terminal.getvalue()


def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = fake_terminal(monkeypatch)
    with silent():
        with working("loading"), silent(False):  # what is silenced outside stays so
            pass
        with ProgressBar("checking", 3) as progress:
            progress.advance(1)
    assert terminal.getvalue() == ""
    with silent(False), working("loading"):
        pass
    assert "loading" in terminal.getvalue()


def test_a_terminal_has_one_bar_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = fake_terminal(monkeypatch)
    with ProgressBar("outer", 3) as progress:
        with working("inner"):
            progress.advance(1)
        progress.update(3)
    assert "inner" not in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    with working("after"):
        pass
    assert "after" in terminal.getvalue()


def test_only_the_first_process_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = fake_terminal(monkeypatch)
    monkeypatch.setenv("RANK", "1")
    with working("loading"):
        pass
    assert terminal.getvalue() == ""


def test_nothing_runs_beside_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = fake_terminal(monkeypatch)
    before = threading.active_count()
    with ProgressBar("measuring", 2, still=True) as progress:
        assert threading.active_count() == before
        progress.advance(1)
        assert "1/2" in terminal.getvalue()
