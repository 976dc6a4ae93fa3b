import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from effnet.data import find_classes
from effnet.data.folder import list_images, read_classes, split_classes
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_lists_images_by_class_and_name(tmp_path: Path) -> None:
    train = tmp_path / "train"
    expected = [
        train / "b b" / "1.JPG",
        train / "b b" / "10.jpeg",
        train / "b b" / "2.WebP",
        train / "ä" / "x.y.png",
        train / "ä" / "ü.tif",
    ]
    others = ["ä/notes.txt", "ä/._x.jpg", "readme.md", ".git/a.jpg"]
    touch(*reversed(expected), *(train / name for name in others))
    (train / "ä" / "folder.jpg").mkdir()
    images = list_images(tmp_path, "train")
    assert images.classes == read_classes(tmp_path) == ["b b", "ä"]
    assert [images.path(i) for i in range(len(images))] == expected
    assert images.targets.tolist() == [0, 0, 0, 1, 1]


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "train" / "a" / os.fsdecode(b"\xff.jpg")
    touch(path)
    assert list_images(tmp_path, "train").path(0) == path


def test_given_classes_order_the_targets(tmp_path: Path) -> None:
    touch(tmp_path / "val" / "cat" / "1.jpg", tmp_path / "val" / "ant" / "1.jpg")
    images = list_images(tmp_path, "val", ["dog", "cat", "ant"])
    assert images.targets.tolist() == [2, 1]
    assert images.path(0).parent.name == "ant"


def test_the_index_is_a_few_bytes_an_image(tmp_path: Path) -> None:
    for n in range(2000):
        touch(tmp_path / "train" / str(n % 3) / f"n01440764_{n:05d}.JPEG")
    images = list_images(tmp_path, "train")
    bytes_each = len(pickle.dumps(images)) / len(images)
    assert bytes_each < 40  # 20 of the name, 8 of its end, 4 of the target
    assert np.bincount(images.targets).tolist() == [667, 667, 666]


@pytest.mark.parametrize(
    ("files", "split", "complaint"),
    [
        ([], "train", "no such folder"),
        (["val/a/1.jpg"], "train", "has no train/ folder"),
        (["train/a/1.jpg"], "val", "has no val/ folder"),
        (["train/1.jpg"], "train", "holds no class folders"),
        (["train/a/1.txt"], "train", "train/a: a class folder without images"),
        (["train/a/1.jpg", "val/b/1.jpg"], "val", "val/b: no such class"),
    ],
)
def test_a_folder_in_the_wrong_form(tmp_path: Path, files: list[str], split: str, complaint: str) -> None:
    root = tmp_path / "data"
    touch(*(root / name for name in files))
    with pytest.raises(UserError, match=complaint) as raised:
        list_images(root, split, ["a"])
    assert "\n" not in str(raised.value)


def test_a_run_that_only_validates_has_train_s_classes_where_there_are_any(tmp_path: Path) -> None:
    for folder in ("train/cat", "train/dog", "val/dog"):
        (tmp_path / folder).mkdir(parents=True)
    assert split_classes(tmp_path, ("val",)) == ["cat", "dog"]
    assert find_classes(Recipe(), tmp_path, ("val",)) == ["cat", "dog"]
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    assert split_classes(tmp_path, ("val",)) == ["dog"]
    assert find_classes(Recipe(), tmp_path, ("val",)) == ["dog"]


def test_links_that_lead_to_themselves_or_back_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "a" / "1.jpg")
    for link, target in {"self": "self", "a/self.jpg": "self.jpg", "a/back": "../..", ".hidden": "a"}.items():
        (tmp_path / "train" / link).symlink_to(target)
    images = list_images(tmp_path, "train")
    assert images.classes == ["a"]
    assert [images.path(0)] == [tmp_path / "train" / "a" / "1.jpg"]


def test_what_is_no_file_is_no_image(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "a" / "1.jpg")
    os.mkfifo(tmp_path / "train" / "a" / "fifo.jpg")
    (tmp_path / "train" / "a" / "gone.jpg").symlink_to("nowhere")
    assert len(list_images(tmp_path, "train")) == 1


def test_names_that_differ_in_case_are_two_classes(tmp_path: Path) -> None:
    touch(*(tmp_path / "train" / name / "1.jpg" for name in ("con", "Con", "CON")))
    images = list_images(tmp_path, "train")
    assert images.classes == ["CON", "Con", "con"]
    assert len({images.file(index) for index in range(3)}) == 3


def test_a_class_folder_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "train" / "closed" / "1.jpg")
    listed = os.scandir

    def refuse(path: str | bytes | Path) -> object:
        if b"closed" in os.fsencode(path):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="closed: Permission denied"):
        list_images(tmp_path, "train")


def test_very_many_class_folders(tmp_path: Path) -> None:
    """The first empty one is named, and the others, of which there may be 100,000, are not looked at in vain."""
    for number in range(2000):
        (tmp_path / "train" / f"{number:04}").mkdir(parents=True)
    with pytest.raises(UserError, match="train/0000: a class folder without images"):
        list_images(tmp_path, "train")
    assert len(list_images(tmp_path, "train", allow_empty=True).classes) == 2000
