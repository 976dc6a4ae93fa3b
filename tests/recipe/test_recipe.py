"""Recipes: checked, and read from YAML."""

from pathlib import Path

import pytest
import yaml

from effnet.recipe import Recipe, read_recipe
from effnet.runtime.errors import UserError


def test_yaml_there_and_back(tmp_path: Path) -> None:
    recipe = Recipe().replace(
        {"arch": "efficientnet-b4", "lr": 1e-5, "crop_scale": [0.2, 0.9], "compile": True}
    )
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe.to_dict()))
    assert Recipe().replace(read_recipe(tmp_path / "r.yaml")) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_yaml_reads_1e_5_as_a_number(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("optimizer:\n  weight_decay: 1e-5\n")
    assert Recipe().replace(read_recipe(tmp_path / "r.yaml")).optimizer.weight_decay == 1e-5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "--batch-size must be at least 1 and at most 65536, not 0"),
        ({"mixup": -1.0}, "--mixup must be at least 0 and at most 1000, not -1"),
        ({"momentum": 1.0}, "--momentum must be at least 0 and below 1, not 1"),
        ({"lr": "fast"}, "--lr must be of type float, not 'fast'"),
        ({"lr": float("nan")}, "--lr must be above 0 and at most 1e+38, not nan"),
        ({"epochs": 2.5}, "--epochs must be of type int, not 2.5"),
        ({"epochs": True}, "--epochs must be of type int, not True"),
        ({"arch": None}, "--arch must be of type str, not None"),
        ({"crop_scale": [0.5]}, "--crop-scale takes 2 numbers"),
        ({"crop_scale": [0.9, 0.5]}, "--crop-scale takes the lower number first"),
        ({"optimizer": "adam"}, "--optimizer must be one of rmsprop, sgd, adamw, not 'adam'"),
        ({"speed": 1}, "unknown setting 'speed'"),
    ],
)
def test_values_are_checked(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as error:
        Recipe().replace(values)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: [", "is not YAML"),
        ("just text", "holds no groups"),
        ("model:\n  archh: x\n", "unknown setting model.archh"),
        ("data:\n  lr: 1\n", "unknown setting data.lr"),
        ("model: 3\n", "must hold settings"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_recipe(path)
    assert "broken.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file() -> None:
    with pytest.raises(UserError, match="nowhere.yaml"):
        read_recipe("nowhere.yaml")
