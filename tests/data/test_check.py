import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.cli import main
from effnet.cli.check import print_report
from effnet.data.check import ODDITIES, Report, check
from effnet.data.survey import surveyed
from effnet.runtime.errors import UserError

from .conftest import photograph


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """22 training and 7 validation images, none of them odd or twice there."""
    root = tmp_path / "data"
    for seed, split, count in ((0, "train", 11), (1000, "val", 4)):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for n in range(count - (split == "val" and label == "dog")):
                image = photograph(40 + 3 * n, 90 - 4 * n, seed=seed + n + 100 * (label == "dog"))
                image.save(root / split / label / f"{n}.jpg")
    return root


def names(report: Report, split: str, oddity: str) -> set[str]:
    return {Path(file).name for file in report.splits[split].odd.get(oddity, [])}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sound_data_set(clean: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.data.check.surveyed", partial(surveyed, at_once=3))
    report = check(clean, workers=workers)
    assert report.problems == []
    train, val = report.splits["train"], report.splits["val"]
    assert (train.images, val.images) == (22, 7)
    assert val.images_per_class == {"cat": 4, "dog": 3}
    assert train.bytes == sum(path.stat().st_size for path in clean.glob("train/*/*"))
    assert (train.height["min"], train.height["median"], train.height["max"]) == (40, 55, 70)
    assert (train.width["min"], train.width["max"]) == (50, 90)
    assert not train.odd
    assert not train.duplicates
    assert not report.leakage
    assert not report.classes_without_val


def test_broken_images_are_problems(clean: Path) -> None:
    truncated = clean / "train" / "cat" / "3.jpg"
    truncated.write_bytes(truncated.read_bytes()[:300])
    empties = [clean / "train" / "dog" / "empty.png", clean / "val" / "dog" / "empty.png"]
    for empty in empties:
        empty.touch()
    report = check(clean, workers=0)
    assert set(report.splits["train"].broken) == {str(truncated), str(empties[0])}
    assert "can't be decoded" in report.splits["train"].broken[str(truncated)]
    assert report.problems == ["broken images: 3"]  # nor are empty files the same image
    assert report.splits["train"].height["min"] == 40


def test_leakage_is_a_problem_duplicates_are_not(clean: Path) -> None:
    train, val = clean / "train", clean / "val"
    shutil.copy(train / "cat" / "1.jpg", train / "cat" / "again.jpg")
    assert check(clean, workers=0).problems == []
    shutil.copy(train / "cat" / "1.jpg", val / "dog" / "other.jpg")
    shutil.copy(train / "dog" / "2.jpg", val / "dog" / "2again.jpg")
    report = check(clean, workers=0)
    assert report.splits["train"].duplicates == [
        [str(train / "cat" / "1.jpg"), str(train / "cat" / "again.jpg")]
    ]
    assert report.splits["val"].duplicates == []
    assert report.leakage == [
        [str(train / "cat" / "1.jpg"), str(train / "cat" / "again.jpg"), str(val / "dog" / "other.jpg")],
        [str(train / "dog" / "2.jpg"), str(val / "dog" / "2again.jpg")],
    ]
    assert report.problems == ["images in both train/ and val/: 2"]


def test_classes(clean: Path) -> None:
    (clean / "train" / "emu").mkdir()
    (clean / "train" / "emu" / "notes.txt").touch()
    (clean / "val" / "lynx").mkdir()
    photograph(40, 40, seed=7000).save(clean / "val" / "lynx" / "1.png")
    for path in (clean / "val" / "dog").iterdir():
        path.unlink()
    report = check(clean, workers=0)
    assert report.splits["train"].empty_classes == ["emu"]
    assert report.splits["val"].empty_classes == ["dog"]
    assert report.unknown_classes == ["lynx"]
    assert report.classes_without_val == ["dog", "emu"]
    assert report.problems == ["class folders without images: 2", "classes in val/ that train/ lacks: 1"]


def test_oddities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effnet.data.check.LARGE", 10_000)
    place = tmp_path / "train" / "a"
    place.mkdir(parents=True)
    image, upright = photograph(50, 40), Image.Exif()
    upright[0x0112] = 6
    frames = {"save_all": True, "append_images": [photograph(50, 40, 1)]}
    image.save(place / "plain.jpg")
    image.convert("L").save(place / "grey.jpg")
    image.convert("CMYK").save(place / "cmyk.jpg")
    image.convert("P").save(place / "palette.png")
    image.convert("RGBA").save(place / "rgba.png")
    Image.fromarray(np.full((40, 50), 40000, np.uint16)).save(place / "deep.png")
    image.save(place / "moving.webp", **frames)
    image.save(place / "upright.jpg", exif=upright)
    image.save(place / "still.png", exif=Image.Exif())
    photograph(31, 40).save(place / "small.jpg")
    photograph(40, 161).save(place / "long.jpg")
    photograph(101, 100).save(place / "large.png")
    image.save(place / "a.png.jpg", format="PNG")
    image.save(place / "b.JPEG")
    image.save(place / "c.tiff")
    image.convert("L").save(place / "d.pgm")
    Image.open(place / "plain.jpg").save(place / "e.jfif", format="MPO", **frames)
    report = check(tmp_path, workers=0)
    assert not report.splits["train"].broken
    found = {oddity: names(report, "train", oddity) for oddity in ODDITIES}
    assert found == {
        "grayscale": {"grey.jpg", "deep.png", "d.pgm"},
        "cmyk": {"cmyk.jpg"},
        "palette": {"palette.png"},
        "transparent": {"rgba.png"},
        "16-bit": {"deep.png"},
        "animated": {"moving.webp"},
        "rotated": {"upright.jpg"},
        "small": {"small.jpg"},
        "large": {"large.png"},
        "long": {"long.jpg"},
        "wrong extension": {"a.png.jpg"},
    }


def test_more_images_than_a_worker_takes_at_once(tmp_path: Path) -> None:
    for n in range(150):
        place = tmp_path / "val" / str(n % 3)
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40 + n), (n, 0, 0)).save(place / f"{n:03d}.png")
    broken = tmp_path / "val" / "2" / "146.png"
    broken.write_bytes(broken.read_bytes()[:40])
    report = check(tmp_path, workers=2)
    assert list(report.splits) == ["val"]
    assert list(report.splits["val"].broken) == [str(broken)]
    assert report.splits["val"].height["max"] == 189


@pytest.mark.parametrize(
    ("files", "complaint"), [([], "no such folder"), (["1.jpg"], "no train/ and no val/")]
)
def test_a_folder_in_the_wrong_form(tmp_path: Path, files: list[str], complaint: str) -> None:
    for name in files:
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).touch()
    with pytest.raises(UserError, match=complaint):
        check(tmp_path / "data")


def test_the_command_tells_by_its_exit_code(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prepare", "check", str(clean), "--workers", "0"]
    photograph(40, 40).convert("L").save(clean / "train" / "cat" / "grey.jpg")
    print_report(check(clean, workers=0), as_json=False)
    out = capsys.readouterr().out
    assert "no problems" in out
    assert "grey.jpg" in out
    (clean / "val" / "cat" / "text.jpg").write_text("hello")
    assert main(command) == 1
    out = capsys.readouterr().out
    assert "problems: broken images: 1" in out
    assert "text.jpg: can't be decoded: not an image" in out
    assert main([*command, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == ["broken images: 1"]
    assert found["splits"]["val"]["images_per_class"] == {"cat": 5, "dog": 3}
    assert list(found["splits"]["train"]["odd"]) == ["grayscale"]
    for text in clean.rglob("text.jpg"):
        text.unlink()
    assert main(command) == 0


def test_imagenets_photographs(shared_dir: Path, tmp_path: Path) -> None:
    """The sample's description names the odd ones it has: grayscale, very large, very small."""
    source = shared_dir / "data" / "imagenet-sample" / "val"
    if not source.is_dir():
        pytest.skip("no imagenet-sample in shared/data")
    report = check(source.parent)
    val = report.splits["val"]
    assert (val.images, len(val.images_per_class)) == (426, 426)
    assert report.problems == []
    assert val.odd["grayscale"]
    assert all(Image.open(file).mode == "L" for file in val.odd["grayscale"])


def test_a_table(folder: Path, tmp_path: Path) -> None:
    """A check finds what a training stops at: files that are not there, and a class that is in validation alone."""
    files = sorted((folder / "train").rglob("*.jpg"))[:4]
    rows = [f"{file},cat,train" for file in files[:3]] + ["absent.jpg,dog,train", f"{files[3]},bird,val"]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,split", *rows, f"{files[0]},cat,val"]))
    report = check(tmp_path / "table.csv", workers=0)
    assert report.splits["train"].images_per_class == {"cat": 3, "dog": 1}
    assert report.splits["train"].broken == {
        f"{tmp_path}/absent.jpg": "can't be read: No such file or directory"
    }
    assert report.unknown_classes == ["bird"]
    assert report.classes_without_val == ["dog"]
    assert len(report.leakage) == 1
    assert len(report.problems) == 3
