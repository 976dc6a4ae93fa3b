"""Runs as they are read from logs, of which many are not what they should be."""

import json
from pathlib import Path

import pytest

from effnet.cli import main
from effnet.report.runs import find_log, read_runs
from effnet.runtime.errors import UserError
from tests.report.logs import metrics_of, record, write_log


def test_metrics_settings_and_state(tmp_path: Path) -> None:
    write_log(tmp_path / "run", 5, lr=0.25)
    (run,) = read_runs([tmp_path / "run"])
    assert run.name == "run"
    assert run.epochs == (1, 2, 3, 4, 5)
    assert run.metrics["val.top1"] == pytest.approx([metrics_of(epoch)["val.top1"] for epoch in range(5)])
    assert run.setting("optimizer", "lr") == 0.25
    assert run.setting("no such", "setting") is None
    assert run.facts["machine"] == {"cpu": "a processor", "python": "3.12"}
    assert run.is_finished
    assert run.position is not None
    assert run.position[:2] == (5, 10)
    assert run.seconds == 5 * 60
    values = [metrics_of(epoch)["val.loss"] for epoch in range(5)]
    assert run.best("val.loss", lowest=True) == (min(values), values.index(min(values)) + 1)
    assert run.best("val.no_such") is None


def test_a_torn_line_other_records_and_values_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    log = write_log(tmp_path, 2, finished=False)
    more = [
        record("epoch", {"val.top1": "nan", "train.loss": 10**400, "text": "x", "flag": True}, 2, 30),
        {**record("epoch", {"val.top1": 3.0}, 3, 30), "epoch": "3"},
        {"type": ["epoch"], "epoch": 4, "data": {"val.top1": 4.0}},
        record("parameters", {"recipe": {"run": {"evaluate": True}}}, None, None),
        record("summary", {"val.top1": 50.0}, None, None),  # of that evaluation
        [1, 2],
        {"type": "epoch", "epoch": 5, "data": [1]},
    ]
    with log.open("a") as file:
        file.writelines(f"{json.dumps(each)}\n" for each in more)
        file.write('{"type": "epoch", "epoch": 9, "da')
    (run,) = read_runs([log])
    assert run.epochs == (1, 2, 3, 6)
    assert run.metrics["val.top1"][2:] == (None, None)
    assert run.metrics["train.loss"][2:] == (None, None)
    assert not {"text", "flag"} & run.metrics.keys()
    assert not run.is_finished
    assert run.setting("model", "arch") == "efficientnet-lite0"


def test_an_epoch_that_a_rollback_repeats_counts_as_it_was_last(tmp_path: Path) -> None:
    log = write_log(tmp_path, 3, finished=False)
    with log.open("a") as file:
        file.write(json.dumps(record("epoch", {"train.loss": 1.5}, 1, 20)) + "\n")
    (run,) = read_runs([log])
    assert run.epochs == (1, 2, 3)
    assert run.metrics["train.loss"][1] == 1.5


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    places = [write_log(tmp_path / name) for name in ("a/run", "b/run", "c", "\x1b[31mred")]
    places.append(write_log(tmp_path / "c", name="other.json"))
    names = [run.name for run in read_runs([*places, places[2]])]
    assert names[:2] == ["a/run", "b/run"]
    assert names[3] == r"\x1b[31mred"
    assert names[4] == "other.json"
    assert len(set(names)) == len(names)


def test_the_scripts_log_has_another_name(tmp_path: Path) -> None:
    log = write_log(tmp_path, name="raport.json")
    assert find_log(tmp_path) == log


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or folder; name the --workspace"),
        ("", "is no log of a training"),
        ("no JSON\n\x00\xff", "is no log of a training"),
        (json.dumps({"type": "epoch", "epoch": 0, "data": {}}), "is no log of a training"),
        (json.dumps(record("parameters", {"recipe": {"model": {}}}, None, None)), "no epoch is finished yet"),
    ],
)
def test_what_is_no_log_is_told_in_one_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.json"
    if content is not None:
        log.write_text(content)
    assert main(["report", str(log), "--output", str(tmp_path / "page.html")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"effnet: error: {log}: ")
    assert message in line
    assert not (tmp_path / "page.html").exists()


def test_a_folder_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no report\.json"):
        find_log(tmp_path)


def test_an_output_that_can_t_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path / "run")
    (tmp_path / "file").write_text("")
    for output in (tmp_path, tmp_path / "file" / "page.html"):
        assert main(["report", str(tmp_path / "run"), "--output", str(output)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--output: {output}: can't be written" in line


def test_flags_that_contradict_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path), "--live", "--output", "page.html"]) == 2
    assert "--live serves the page and writes no file; leave --output out" in capsys.readouterr().err
