"""A log goes on where a checkpoint was written, and another log is left as it is."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from effnet.runtime import progress
from effnet.runtime.log import RunLog


def written(path: Path, *names: str) -> dict[str, int]:
    """Write a log with an event for each name, and return its end."""
    with RunLog(path) as log:
        for name in names:
            log.record("event", {"event": name})
        return log.position()


def events(path: Path) -> list[str]:
    return [json.loads(line)["data"]["event"] for line in path.read_text().splitlines()]


def test_a_log_is_cut_to_where_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with RunLog(path) as log:
        log.record("event", {"event": "ä"})
        position = log.position()
        log.record("event", {"event": "lost"})
    with RunLog(path, append=True, after=position) as log:
        assert log.goes_on
        assert log.position() == position
        log.record("event", {"event": "c"})
        later = log.position()
    assert events(path) == ["ä", "c"]
    assert later["bytes"] == path.stat().st_size
    with RunLog(path, append=True, after=later) as log:
        assert log.goes_on


def test_another_log_keeps_its_lines(tmp_path: Path) -> None:
    position = written(tmp_path / "other.json", "x", "y")
    path = tmp_path / "report.json"
    written(path, "a", "b", "c")
    with RunLog(path, append=True, after=position) as log:
        assert not log.goes_on
        log.record("event", {"event": "d"})
    assert events(path) == ["a", "b", "c", "d"]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    position = written(path, "a", "b")
    path.write_bytes(path.read_bytes()[:-3])
    with RunLog(path, append=True, after=position) as log:
        assert not log.goes_on
        log.record("event", {"event": "c"})
    assert events(path) == ["a", "c"]


def test_without_a_file(tmp_path: Path) -> None:
    assert RunLog(None).position() == {"bytes": 0, "crc32": 0}
    with RunLog(tmp_path / "new.json", append=True, after={"bytes": 0, "crc32": 0}) as log:
        assert not log.goes_on


def test_a_quiet_log_is_only_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for quiet in (True, False):
        with RunLog(tmp_path / "report.json", quiet=quiet) as log:
            log.print("a line")
            log.iteration({"train.loss": 1.0, "train.lr": 0.1}, epoch=0, step=1, steps=2)
        assert len((tmp_path / "report.json").read_text().splitlines()) == 1
        assert bool(capsys.readouterr().out) is not quiet


@pytest.mark.filterwarnings("ignore:install .ipywidgets.")  # there is no notebook to draw it in
@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_shows_a_bar_if_it_can(monkeypatch: pytest.MonkeyPatch, widgets: bool) -> None:
    monkeypatch.setattr(progress, "find_spec", lambda name: object() if widgets else None)
    with RunLog(None) as log:
        log._console = Console(force_jupyter=True)
        log.begin_epoch(0, 2, 10)
        assert (log._progress is not None) is widgets
