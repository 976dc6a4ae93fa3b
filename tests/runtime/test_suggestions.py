"""Suggestions for paths and names that do not exist."""

from pathlib import Path

import pytest

from effnet.runtime.suggestions import suggested, suggested_path


@pytest.fixture
def there(tmp_path: Path) -> Path:
    for folder in ("train/cat", "train/dog", "val/cat", "Weights"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "Weights/model.pth").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("missing", "meant"),
    [
        ("trian", "train"),
        ("trian/cat", "train/cat"),
        ("trian/horse", None),  # there is no such thing in the folder either
        ("weights/model.pth", "Weights/model.pth"),
        ("Weights/modelx.pth", "Weights/model.pth"),
        ("quite-different", None),
        ("train", None),  # which is there
        ("x" * 5000, None),
        ("tr\0in", "train"),
        ("Weights/model.pth/more", None),
    ],
)
def test_paths(there: Path, missing: str, meant: str | None) -> None:
    expected = "" if meant is None else f"; did you mean {there / meant}?"
    assert suggested_path(there / missing) == expected


def test_a_relative_path(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(there)
    assert suggested_path("tarin/dog") == "; did you mean train/dog?"


def test_names() -> None:
    assert suggested("Trochvision", ["ngc", "torchvision", "timm"]) == "; did you mean torchvision?"
    assert suggested("", ["ngc"]) == ""
