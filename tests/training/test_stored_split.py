"""The split that a run made of one folder of classes: stored with it, and back on resume and evaluation."""

import csv
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from effnet.cli import main
from effnet.fitting.compose import compose_recipe
from effnet.inference.evaluate import evaluate
from effnet.runtime.errors import UserError
from effnet.training.run import train
from tests.runs import quick_recipe, write_images

COUNTS = {"circle": 10, "square": 15, "star": 5}


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """One folder of classes."""
    write_images(tmp_path / "single", COUNTS, coloured=True)
    return tmp_path / "single"


def trained(single: Path, workspace: Path, **changes: Any) -> Path:
    """Train for an epoch of two; return the checkpoint."""
    train(quick_recipe(workspace, **{"epochs": 2, "run_epochs": 1, "seed": 5, **changes}), single)
    return workspace / "checkpoint.pth.tar"


def resumed(checkpoint: Path, **changes: Any) -> Any:
    """Return the recipe of a command that goes on from a checkpoint, as the command line composes it."""
    given = {"resume": str(checkpoint), "workspace": str(checkpoint.parent), "device": "cpu", "workers": 0}
    return compose_recipe({**given, **changes})[0]


def rows_of(workspace: Path) -> list[dict[str, str]]:
    with (workspace / "split.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_it_comes_back_though_files_were_added(
    single: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tmp_path / "whole"
    train(quick_recipe(whole, epochs=2, seed=5), single)
    checkpoint = trained(single, tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert {row["path"] for row in rows} == {f"{c}/{n}.jpg" for c, n in COUNTS.items() for n in range(n)}
    in_val = [row["label"] for row in rows if row["split"] == "val"]
    assert {name: in_val.count(name) for name in COUNTS} == {"circle": 2, "square": 3, "star": 1}
    # Its name is before all others: a split by position would be another one.
    shutil.copy(single / "circle" / "3.jpg", single / "circle" / "00.jpg")
    with caplog.at_level(logging.INFO, "effnet"):
        train(resumed(checkpoint), single)
    assert "left out as the run's split lacks them: circle/00.jpg" in caplog.text
    states = [torch.load(folder / "checkpoint.pth.tar")["state_dict"] for folder in (whole, tmp_path / "run")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert evaluate(resumed(checkpoint, evaluate=True), single)["val.images"] == 6


def test_an_image_that_is_gone_is_told(single: Path, tmp_path: Path) -> None:
    checkpoint = trained(single, tmp_path / "run")
    gone = next(row["path"] for row in rows_of(tmp_path / "run") if row["split"] == "train")
    (single / gone).unlink()
    with pytest.raises(UserError, match=f"no longer holds {gone}, which the run's split has"):
        train(resumed(checkpoint), single)
    assert evaluate(resumed(checkpoint, evaluate=True), single)["val.images"] == 6


def test_other_data_is_validated_whole(single: Path, tmp_path: Path) -> None:
    checkpoint = trained(single, tmp_path / "run")
    write_images(tmp_path / "other", {"circle": 3, "star": 4})
    for file in sorted((tmp_path / "other").rglob("*.jpg")):
        file.rename(file.with_name(f"other-{file.name}"))
    assert evaluate(resumed(checkpoint, evaluate=True), tmp_path / "other")["val.images"] == 7
    with pytest.raises(UserError, match="none of its images are of the run's data"):
        train(resumed(checkpoint), tmp_path / "other")


@pytest.mark.slow
def test_weights_bring_the_split_of_the_same_images(
    single: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise another seed would validate what was trained."""
    checkpoint = trained(single, tmp_path / "run")
    weights = {"pretrained_from_file": str(checkpoint), "epochs": 1, "seed": 8}
    train(quick_recipe(tmp_path / "tuned", **weights), single)
    first = {(row["path"], row["split"]) for row in rows_of(tmp_path / "run")}
    kept = torch.load(tmp_path / "tuned" / "checkpoint.pth.tar")["split"]
    assert {split: torch.equal(kept[split], torch.load(checkpoint)["split"][split]) for split in kept} == {
        "train": True,
        "val": True,
    }
    shutil.copy(single / "star" / "0.jpg", single / "star" / "new.jpg")
    train(quick_recipe(tmp_path / "grown", **weights), single)
    assert {(row["path"], row["split"]) for row in rows_of(tmp_path / "grown")} != first
    table = str(tmp_path / "grown" / "split.csv")
    assert main(["prepare", "check", table, "--root", str(single), "--json", "-j", "0"]) == 1  # the copy
    assert '"leakage"' in capsys.readouterr().out


@pytest.mark.slow
def test_a_table_is_packed_and_trained(single: Path, tmp_path: Path) -> None:
    """A column of splits, and settings that a resumed run takes from its checkpoint."""
    lines = ["img,species,part"]
    for name, count in COUNTS.items():
        lines += [f"{name}/{n}.jpg,{name},{'val' if n % 5 == 4 else 'train'}" for n in range(count)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines))
    named = {"path_column": "img", "label_column": "species", "split_column": "part", "root": str(single)}
    checkpoint = trained(table, tmp_path / "run", **named)
    assert not (tmp_path / "run" / "split.csv").exists()
    train(resumed(checkpoint), table)
    assert evaluate(resumed(checkpoint, evaluate=True), table)["val.images"] == 6
    flags = [text for name, value in named.items() for text in (f"--{name.replace('_', '-')}", value)]
    packed = tmp_path / "packed"
    assert main(["prepare", "pack", str(table), str(packed), *flags, "--size", "32", "-j", "0"]) == 0
    own = evaluate(resumed(checkpoint, evaluate=True, data_backend="packed"), packed)
    assert own["val.images"] == 6
