"""The same images give the same batches from whatever source they come."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from effnet.data import DataSource
from tests.data.archives import make_tar, make_zip
from tests.data.conftest import Opened

Row = tuple[str, str, str]
"""path, label, split"""


@pytest.fixture
def rows(folder: Path) -> list[Row]:
    """Rows of the folder's images, in an order of no meaning."""
    files = sorted(folder.rglob("*.jpg"))
    listed = [(str(f.relative_to(folder)), f.parent.name, f.parent.parent.name) for f in files]
    return [listed[n] for n in np.random.default_rng(0).permutation(len(listed))]


def as_csv(folder: Path, rows: list[Row], out: Path) -> Path:
    """A CSV file beside the images."""
    with (out / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *((folder / p, c, s) for p, c, s in rows)])
    return out / "labels.csv"


def as_json(folder: Path, rows: list[Row], out: Path) -> Path:
    """JSON lines."""
    lines = [json.dumps({"file": str(folder / p), "class": c, "split": s}) for p, c, s in rows]
    (out / "labels.jsonl").write_text("\n".join(lines) + "\n")
    return out / "labels.jsonl"


def as_parquet(folder: Path, rows: list[Row], out: Path) -> Path:
    """A Parquet file."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    paths, labels, splits = zip(*((str(folder / p), c, s) for p, c, s in rows), strict=True)
    table = pyarrow.table(
        {"path": paths, "label": pyarrow.array(labels).dictionary_encode(), "split": splits}
    )
    parquet.write_table(table, out / "labels.parquet")
    return out / "labels.parquet"


def as_tar(folder: Path, rows: list[Row], out: Path) -> Path:
    """A tar of the folder, one level down."""
    return make_tar(folder, out / "images.tar", "pets")


def as_zip(folder: Path, rows: list[Row], out: Path) -> Path:
    """A zip of the folder."""
    return make_zip(folder, out / "images.zip")


def as_datasets(folder: Path, rows: list[Row], out: Path) -> Path:
    """A saved data set with a column of splits; labels are texts."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"picture": datasets.Image(), "label": datasets.Value("string"), "split": datasets.Value("string")}
    )
    columns = {
        "picture": [str(folder / path) for path, _, _ in in_order(rows)],
        "label": [label for _, label, _ in in_order(rows)],
        "split": [split for _, _, split in in_order(rows)],
    }
    datasets.Dataset.from_dict(columns, features).save_to_disk(out / "saved")
    return out / "saved"


def as_datasets_by_split(folder: Path, rows: list[Row], out: Path) -> Path:
    """Saved data sets by split; labels are of a type with classes."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])}
    )
    by_split = {}
    for name, wanted in (("train", "train"), ("validation", "val")):
        of_split = [(str(folder / path), label) for path, label, split in in_order(rows) if split == wanted]
        columns = {"image": [path for path, _ in of_split], "kind": [label for _, label in of_split]}
        by_split[name] = datasets.Dataset.from_dict(columns, features)
    datasets.DatasetDict(by_split).save_to_disk(out / "saved")
    return out / "saved"


def in_order(rows: list[Row]) -> list[Row]:
    """Rows of a data set have no names, so that those of a class keep their order."""
    return sorted(rows, key=lambda row: Path(row[0]).name.encode())


def batches(source: DataSource, epochs: int = 2) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All batches of two epochs of training, and of validation."""
    assert source.train is not None
    assert source.val is not None
    for loader in [source.train] * epochs + [source.val]:
        for batch in loader:
            yield batch.images, batch.targets


def assert_equal(one: DataSource, other: DataSource) -> None:
    assert one.classes == other.classes
    count = 0
    for (images, targets), (images_too, targets_too) in zip(batches(one), batches(other), strict=True):
        assert torch.equal(images, images_too)
        assert torch.equal(targets, targets_too)
        count += 1
    assert count == 2 * 5 + 2


@pytest.mark.parametrize(
    "write", [as_csv, as_json, as_parquet, as_tar, as_zip, as_datasets, as_datasets_by_split]
)
def test_a_source_gives_the_folder_s_batches(
    write: Callable[[Path, list[Row], Path], Path],
    folder: Path,
    rows: list[Row],
    opened: Opened,
    tmp_path: Path,
) -> None:
    assert_equal(opened(), opened(write(folder, rows, tmp_path)))


def test_a_single_folder_with_its_stored_split_gives_them_too(
    folder: Path, opened: Opened, tmp_path: Path
) -> None:
    """One folder of classes is divided; the split is laid out as train/ and val/, and as the table that a run keeps."""
    single = tmp_path / "single"
    for file in folder.rglob("*.jpg"):
        (single / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, single / file.parent.name / f"{file.parent.parent.name}-{file.name}")
    first = opened(single, val_split=0.25)
    assert first.made_split is not None
    first.made_split.write_csv(tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(newline="") as table:
        for row in csv.DictReader(table):
            place = tmp_path / "laid-out" / row["split"] / row["label"]
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(single / row["path"], place / Path(row["path"]).name)
    assert_equal(opened(tmp_path / "laid-out"), first)
    assert_equal(opened(tmp_path / "laid-out"), opened(tmp_path / "split.csv", root=str(single)))
