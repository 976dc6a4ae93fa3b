"""Tables: columns, labels of every form, folds and groups, and errors that name file and line."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effnet.data import DataSource, find_labels, open_all, open_splits
from effnet.data.sources import Splits
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from tests.data.conftest import Opened

NAMES = [f"{number}.jpg" for number in range(8)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images in one folder."""
    folder = tmp_path_factory.mktemp("images")
    for number, name in enumerate(NAMES):
        Image.new("RGB", (40, 40), (30 * number, 0, 0)).save(folder / name)
    return folder


def table(folder: Path, lines: list[str], name: str = "labels.csv") -> Path:
    """Write a table in a folder."""
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


def opened(path: Path, images: Path, splits: tuple[str, ...] = ("train", "val"), **settings: Any) -> Splits:
    """Open a table whose paths start from the images' folder."""
    return open_splits(Recipe().replace({"root": str(images), **settings}), path, splits)


def listed(splits: Splits) -> dict[str, list[tuple[str, Any]]]:
    """Return names and targets by split."""
    return {
        split: [(of.name(index), of.targets[index].tolist()) for index in range(len(of))]
        for split, of in splits.images.items()
    }


def test_the_order_of_rows_and_columns_has_no_effect(images: Path, tmp_path: Path) -> None:
    rows = [f"{name},{'ab'[n % 2]},{'train' if n < 6 else 'val'},0.{n}" for n, name in enumerate(NAMES)]
    there = opened(table(tmp_path, ["path,label,split,weight", *rows]), images)
    assert listed(there) == {
        "train": [("0.jpg", 0), ("2.jpg", 0), ("4.jpg", 0), ("1.jpg", 1), ("3.jpg", 1), ("5.jpg", 1)],
        "val": [("6.jpg", 0), ("7.jpg", 1)],
    }
    weights = there.images["train"].weights
    assert weights is not None
    np.testing.assert_allclose(weights, [0, 0.2, 0.4, 0.1, 0.3, 0.5])
    back = [",".join(reversed(row.split(","))) for row in reversed(rows)]
    again = opened(table(tmp_path, ["weight,split,label,path", *back]), images)
    assert listed(again) == listed(there)
    assert again.images["train"].fingerprint() == there.images["train"].fingerprint()


TAGS = {"label_column": "tags"}
BINARY = [(1, 0, True), (0, 0, 0), (1.0, 1, False)]


@pytest.mark.parametrize(
    ("name", "lines", "settings"),
    [
        (
            "a.csv",
            ["file,tags", "0.jpg,x;z", "1.jpg,", "2.jpg, y ;x"],
            {"label_separator": ";", "label_column": "tags"},
        ),
        ("a.csv", ["image,x,y,z", "0.jpg,1,0,1", "1.jpg,0,0,0", "2.jpg,1,1,0"], {}),
        (
            "a.csv",
            ["image,z,y,x,n", "0.jpg,1,0,1,7", "1.jpg,0,0,0,8", "2.jpg,0,1,1,9"],
            {"label_column": "x,y,z"},
        ),
        ("a.tsv", ["path\tx\ty\tz", "0.jpg\tTrue\tFalse\t1.0", "1.jpg\t0\t0\t0", "2.jpg\t1\t1\t0"], {}),
        (
            "a.jsonl",
            [
                json.dumps({"path": n, "labels": labels})
                for n, labels in (("0.jpg", ["z", "x"]), ("1.jpg", []), ("2.jpg", ["x", "y"]))
            ],
            {},
        ),
        (
            "a.ndjson",
            [
                json.dumps({"path": f"{n}.jpg", "x": x, "y": y, "z": z})
                for n, x, y, z in ((0, 1, 0, True), (1, 0, 0, 0), (2, 1.0, 1, 0))
            ],
            {},
        ),
    ],
)
def test_several_labels(
    name: str, lines: list[str], settings: dict[str, Any], images: Path, tmp_path: Path
) -> None:
    path = table(tmp_path, lines, name)
    recipe = Recipe().replace({"root": str(images), **settings})
    labels = find_labels(recipe, path, ("val",))
    assert (labels.classes, labels.several) == (["x", "y", "z"], True)
    of_all = open_splits(recipe.replace({"val_split": 1.0}), path, ("val",))
    assert of_all.several_labels
    assert of_all.images["val"].targets.dtype == np.uint8
    assert of_all.images["val"].targets.tolist() == [[1, 0, 1], [0, 0, 0], [1, 1, 0]]


def test_batches_have_several_labels_and_weights(images: Path, tmp_path: Path, opened: Opened) -> None:
    lines = [
        "path,x,y,split,weight",
        *(f"{n}.jpg,{n % 2},{int(n > 3)},{'val' if n > 5 else 'train'},{n}" for n in range(8)),
    ]
    source: DataSource = opened(table(tmp_path, lines), root=str(images), batch_size=3)
    assert source.train is not None
    for batch in source.train:
        assert batch.indices is not None
        assert batch.weights is not None
        assert batch.targets.tolist() == [[n % 2, float(n > 3)] for n in batch.indices.tolist()]
        assert batch.weights.tolist() == batch.indices.tolist()
        assert (str(batch.targets.dtype), str(batch.weights.dtype)) == ("torch.float32", "torch.float32")


def test_a_fold_is_validated(images: Path, tmp_path: Path) -> None:
    path = table(tmp_path, ["path,label,fold", *(f"{n}.jpg,{'ab'[n % 2]},{n // 2}" for n in range(8))])
    for fold in range(4):
        found = listed(opened(path, images, fold=fold))
        assert sorted(name for name, _ in found["val"]) == [f"{2 * fold}.jpg", f"{2 * fold + 1}.jpg"]
        assert sorted(name for of in found.values() for name, _ in of) == NAMES
    with pytest.raises(UserError, match="--fold 9: .* has the folds 0, 1, 2, 3"):
        opened(path, images, fold=9)


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_not_divided(images: Path, tmp_path: Path, seed: int) -> None:
    path = table(tmp_path, ["path,label,patient", *(f"{n}.jpg,{'ab'[n % 2]},p{n % 5}" for n in range(8))])
    found = opened(path, images, group_column="patient", seed=seed, val_split=0.4)
    groups = {split: {int(name[0]) % 5 for name, _ in of_split} for split, of_split in listed(found).items()}
    assert groups["train"] | groups["val"] == set(range(5))
    assert not groups["train"] & groups["val"]
    assert len(groups["val"]) == 2


def test_a_test_split_is_left_out_and_other_delimiters_are_read(images: Path, tmp_path: Path) -> None:
    lines = ["\ufeffPath; Label ;split", "0.jpg;a;training", "1.jpg;a;Valid", "2.jpg;b;test"]
    assert listed(opened(table(tmp_path, lines), images)) == {"train": [("0.jpg", 0)], "val": [("1.jpg", 0)]}


def test_numbers_are_class_names(images: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"path": f"{n}.jpg", "label": label}) for n, label in enumerate((10, 2, 2.0, 10))]
    found = opened(table(tmp_path, lines, "a.jsonl"), images, ("val",), val_split=1.0)
    assert found.classes == ["10", "2"]
    assert found.images["val"].targets.tolist() == [0, 0, 1, 1]


def test_paths_start_from_the_table_s_folder(images: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "0.jpg").write_bytes((images / "0.jpg").read_bytes())
    path = table(tmp_path, ["path,label", "./sub/../sub/0.jpg,a", f"{images}/1.jpg,a"])
    found = open_splits(Recipe().replace({"val_split": 1.0}), path, ("val",)).images["val"]
    assert [found.file(0), found.file(1)] == [f"{images}/1.jpg", f"{tmp_path}/sub/0.jpg"]
    assert found.image(1).decode().shape == (40, 40, 3)


def test_every_image_without_labels(images: Path, tmp_path: Path) -> None:
    path = table(tmp_path, ["path", "3.jpg", "1.jpg", "absent.jpg"])
    every = open_all(path, Recipe().replace({"root": str(images)}))
    assert [every.name(index) for index in range(len(every))] == ["3.jpg", "1.jpg", "absent.jpg"]


def test_a_path_in_both_splits_is_told(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "effnet"):
        opened(table(tmp_path, ["path,label,split", "0.jpg,a,train", "1.jpg,a,val", "0.jpg,a,val"]), images)
    assert "labels.csv:4: 0.jpg both for training and for validation" in caplog.text


HEAD = "path,label,split"


@pytest.mark.parametrize(
    ("lines", "settings", "message"),
    [
        (
            ["path,text", "0.jpg,a"],
            {},
            "labels.csv: which of path, text holds the labels? name it by --label-column",
        ),
        (
            ["where,label", "0.jpg,a"],
            {},
            "labels.csv: which of where, label holds the paths? name it by --path-column",
        ),
        (
            [HEAD],
            {"label_column": "labelx"},
            "--label-column labelx: .* has no such column; did you mean label?",
        ),
        (
            [HEAD],
            {"weight_column": "w"},
            "--weight-column w: .* has no such column; it has path, label, split",
        ),
        ([HEAD, "0.jpg,a,train", "1.jpg,,val"], {}, "labels.csv:3: an empty label"),
        ([HEAD, ",a,train"], {}, "labels.csv:2: an empty path"),
        ([HEAD, "0.jpg,a,train", "", "1.jpg,a"], {}, "labels.csv:4: 2 values for 3 columns"),
        ([HEAD, "0.jpg,a,trian"], {}, "labels.csv:2: split must be train, val or test, not 'trian'"),
        (
            [HEAD, "0.jpg,bird,train", "1.jpg,brid,val"],
            {},
            "labels.csv:3: no class brid .* did you mean bird?",
        ),
        ([HEAD, "0.jpg,a,train", "9.jpg,a,val"], {}, "labels.csv:3: no such file .*/9.jpg"),
        ([HEAD, "0.jpg,a,train"], {}, "no image is for validation"),
        ([HEAD, "0.jpg,a,val"], {}, "no image is for training"),
        ([HEAD], {}, "labels.csv: holds no rows"),
        (["path,label,path", "0.jpg,a,b"], {}, "labels.csv: the column path twice"),
        (["path,label,weight", "0.jpg,a,-1"], {}, "labels.csv:2: weight must be from 0, not '-1'"),
        (["path,label,weight", "0.jpg,a,nan"], {}, "labels.csv:2: weight must be from 0, not 'nan'"),
        (["path,label,weight", "0.jpg,a,much"], {}, "labels.csv:2: weight must be a number, not 'much'"),
        (["path,x,y", "0.jpg,0,1", "1.jpg,2,1"], {}, "labels.csv:3: x must be 0 or 1, not '2'"),
        (["path,label", "0.jpg,a"], {"fold": 1}, "--fold 1: .*labels.csv has no column of folds"),
        ([], {}, "labels.csv: holds no rows"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    lines: list[str], settings: dict[str, Any], message: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as raised:
        opened(table(tmp_path, lines), images, **settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"path": "0.jpg"\n', "a.jsonl:1: no JSON"),
        (
            "a.jsonl",
            b'{"path": "0.jpg", "label": "a"}\n[1]\n',
            "a.jsonl:2: each line must hold one JSON object",
        ),
        ("a.jsonl", b'{"path": 3, "label": "a"}\n', "a.jsonl:1: no path but 3"),
        ("a.jsonl", b'{"path": "0.jpg", "label": {"a": 1}}\n', "a.jsonl:1: a label must be text"),
        ("a.parquet", b"PAR1 and nothing of one", "a.parquet: "),
        ("a.csv", b'path,label\n"0.jpg,a\n', "a.csv:2: 1 values for 2 columns"),
        ("a.csv", b"\xff\xfe\x00", "a.csv: which of"),
    ],
)
def test_damaged_files(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        open_splits(Recipe(), tmp_path / name)
    assert "\n" not in str(raised.value)


def test_a_kind_that_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "labels.xlsx").touch()
    with pytest.raises(UserError, match="no kind of data set ends in .xlsx"):
        open_splits(Recipe(), tmp_path / "labels.xlsx")
    with pytest.raises(UserError, match="gone.csv: No such file"):
        open_splits(Recipe(), tmp_path / "gone.csv")
