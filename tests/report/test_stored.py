"""Answers that an evaluation has left in a run's folder."""

import logging
from pathlib import Path

import pytest

from effnet.cli import main
from effnet.report.runs import read_runs
from effnet.report.stored import stored
from effnet.report.validation import validated


def test_files_of_an_evaluation_are_the_validation_s(
    trained: list[Path], images: Path, tmp_path: Path
) -> None:
    command = [
        "evaluate",
        str(images),
        "--resume",
        str(trained[0] / "model_best.pth.tar"),
        "--device",
        "cpu",
        "--quiet",
    ]
    command += [
        "-a",
        "efficientnet-lite0",
        "--image-size",
        "32",
        "--workers",
        "0",
        "--workspace",
        str(tmp_path),
    ]
    for flag in ("confusion", "per-class", "reliability"):
        command += [f"--{flag}", str(tmp_path / f"{flag.replace('-', '_')}.csv")]
    assert main(command) == 0
    found = stored(tmp_path)
    expected = validated(read_runs([trained[0]])[0], images, device="cpu")
    assert found is not None
    assert found.source == "confusion.csv, per_class.csv, reliability.csv"
    assert list(found.classes) == list(expected.classes)
    assert sorted(found.cells) == sorted(expected.cells)
    assert found.images == expected.images == 15
    for name, metrics in expected.by_class.items():
        assert found.by_class[name]["f1"] == pytest.approx(metrics["f1"], abs=1e-4)
    assert [len(rows) for rows in found.reliability.values()] == [
        len(rows) for rows in expected.reliability.values()
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("confusion.csv", ""),
        ("confusion.csv", "x,a,b\na,1,2\nc,1,2\n"),
        ("confusion.csv", "x,a\na,many\n"),
        ("confusion.csv", "x,a\na\x00,1\n"),
        ("per_class.csv", "name,price\nshoe,3\n"),
        ("per_class.csv", "class,images,f1\na,1\n"),
        ("reliability.csv", "a,b\n"),
    ],
)
def test_other_files_of_these_names_are_left_out(
    name: str, content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_text(content)
    with caplog.at_level(logging.WARNING, logger="effnet"):
        assert stored(tmp_path) is None
    assert f"{tmp_path / name}: is not as `effnet evaluate` writes it" in caplog.text


def test_a_folder_without_them(tmp_path: Path) -> None:
    assert stored(tmp_path) is None
