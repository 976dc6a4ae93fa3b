"""Recipes beside each other and beside NVIDIA's."""

import json
from pathlib import Path

from effnet.report.recipes import compare
from effnet.report.runs import read_runs
from tests.report.logs import write_log


def test_differences_between_runs(tmp_path: Path) -> None:
    places = [
        write_log(tmp_path / "one", lr=0.1, mixup=0.0),
        write_log(tmp_path / "two", lr=0.2, mixup=0.0, use_ema=0.999),
    ]
    comparison = compare(read_runs(places))
    logged = [json.loads(place.read_text().splitlines()[0])["data"]["recipe"] for place in places]
    expected = {
        (group, name)
        for group in logged[0]
        for name in logged[0][group]
        if logged[0][group][name] != logged[1][group][name]
    }
    assert {(row.group, row.name) for row in comparison.rows if row.differs} == expected
    shown = {row.name: row.values for row in comparison.rows}
    assert shown["lr"] == ("0.1", "0.2")
    assert shown["use_ema"] == ("none", "0.999")


def test_differences_from_nvidia_s_recipe(tmp_path: Path, shared_dir: Path) -> None:
    published = json.loads((shared_dir / "reference/recipes.json").read_text())
    assert published, "NVIDIA's values"
    settings = {
        "arch": "efficientnet-b0",
        "image_size": 224,
        "epochs": 400,
        "warmup": 16.0,
        "lr": 0.08,
        "weight_decay": 1e-5,
        "mixup": 0.2,
        "augmentation": "autoaugment",
        "label_smoothing": 0.1,
        "rmsprop_eps": 0.01,
    }
    write_log(tmp_path / "same", **settings)
    write_log(tmp_path / "other", **{**settings, "mixup": 0.0, "use_ema": 0.9999})
    same, other = (
        {row.name: row for row in compare(read_runs([tmp_path / name])).rows} for name in ("same", "other")
    )
    assert compare(read_runs([tmp_path / "same"])).title == "efficientnet-b0/DGXA100/TF32"
    for name in settings:
        assert not same[name].deviates, same[name]
    assert other["mixup"].deviates
    assert (other["mixup"].values, other["mixup"].nvidia) == (("0",), "0.2")
    assert other["use_ema"].deviates
    assert not same["use_ema"].deviates
    # NVIDIA leaves these to the model, the data and the machine.
    for name in ("num_classes", "workers", "batch_size", "workspace"):
        assert not other[name].deviates
        assert other[name].nvidia == ""


def test_a_model_that_nvidia_has_not_published(tmp_path: Path) -> None:
    comparison = compare(read_runs([write_log(tmp_path)]))
    assert comparison.title == "what all of NVIDIA's recipes have in common"
    rows = {row.name: row for row in comparison.rows}
    assert rows["arch"].nvidia == ""
    assert rows["lr"].nvidia == ""
    assert rows["rmsprop_alpha"].nvidia == "0.9"
    assert not any(row.group == "quantization" for row in comparison.rows)
