"""A log goes on where a checkpoint was written, and another log is left as it is."""

import json
from pathlib import Path

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
