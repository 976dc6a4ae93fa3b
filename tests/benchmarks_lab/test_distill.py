"""The gain from distillation: the sample, the runs of both kinds, and rows that are measured once."""

from pathlib import Path

import pytest

from benchmarks import distill
from benchmarks.distill import Plan, Row, measure, table
from effnet.recipe import Recipe
from tests.runs import write_images


def test_each_kind_is_trained_once_for_each_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        write_images(tmp_path / "data" / split, {"circle": 6, "square": 9})
    runs: list[Recipe] = []
    monkeypatch.setattr(distill, "train", lambda recipe, path: runs.append(recipe))
    monkeypatch.setattr(distill, "evaluate", lambda recipe, path: {"val.top1": 40.0 + len(runs)})
    plan = Plan(tmp_path / "data", tmp_path / "out", images=8, val_images=100)
    rows = measure(plan)
    assert [row.top1 for row in rows] == [41, 42, 43, 44, 45]
    assert measure(plan) == rows
    assert len(runs) == 5
    assert [recipe.optimizer.teacher for recipe in runs[1:]] == [None, str(tmp_path / "out/teacher")] * 2
    assert [recipe.compute.seed for recipe in runs[1:]] == [0, 0, 1, 1]
    assert runs[0].model.pretrained
    assert not any(recipe.model.pretrained for recipe in runs[1:])
    sample = tmp_path / "out" / "sample"
    assert {path.name: len(list(path.iterdir())) for path in (sample / "train").iterdir()} == {
        "circle": 4,
        "square": 4,
    }
    assert len(list((sample / "val").glob("*/*"))) == 15


def test_the_table_has_means_over_the_seeds() -> None:
    rows = [Row("b0", "", 0, 40.0), Row("b0", "t", 0, 50.0), Row("b0", "", 1, 41.0), Row("b0", "t", 1, 53.0)]
    assert table(rows).splitlines()[2:] == [
        "| b0 | none | 40.5 % | 40.0, 41.0 |",
        "| b0 | t | 51.5 % | 50.0, 53.0 |",
    ]
