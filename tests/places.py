"""Folders with what the commands of a page name: images, tables of them, runs that have ended, exported models."""

import csv
import os
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from effnet.cli import main
from effnet.weights import IMAGENET, class_list
from tests.commands import REPOSITORY
from tests.runs import CLASSES, write_images

IMAGE_FOLDERS = ("my-images", "images", "DIR", "data/birds")
"""folders with `train/` and `val/`, as pages name them"""


def _write_archives(images: Path, root: Path) -> None:
    with tarfile.open(root / "images.tar", "w") as tar, zipfile.ZipFile(root / "images.zip", "w") as zipped:
        for file in sorted(images.rglob("*.jpg")):
            tar.add(file, file.relative_to(images))
            zipped.write(file, file.relative_to(images))


def _write_tables(images: Path, root: Path) -> None:
    """Write labels.csv, labels.parquet, and a folder of Hugging Face `datasets`."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="extra tables")
    pyarrow = pytest.importorskip("pyarrow", reason="extra tables")
    datasets = pytest.importorskip("datasets", reason="extra datasets")
    files = sorted(images.glob("train/*/*.jpg"))
    rows = [
        {
            "path": str(file),
            "label": file.parent.name,
            "tags": ";".join(CLASSES[: index % 3]),
            **{name: (index >> bit) & 1 for bit, name in enumerate(("beach", "forest", "snow"))},
        }
        for index, file in enumerate(files)
    ]
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    species = [row["label"] for row in rows]
    named = {"file": [str(file.relative_to(images)) for file in files], "species": species}
    parquet.write_table(pyarrow.table(named), root / "labels.parquet")
    columns = {"image": [row["path"] for row in rows], "fine_label": species}
    saved = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    saved.save_to_disk(str(root / "saved"))


def _write_imagenet(root: Path) -> None:
    wnids = class_list(IMAGENET).wnids
    (root / "wnids.txt").write_text("\n".join(wnids))
    write_images(root / "imagenet/val", dict.fromkeys(wnids[:2], 2))


def _export(root: Path) -> None:
    assert main(f"export onnx --image-size 32 --output {root}/model.onnx".split()) == 0


def prepare(root: Path, text: str, images: Path, trained: Path) -> None:
    """Write what a page names into an empty folder.

    Args:
        root: the folder.
        text: the page's commands and examples.
        images: with `train/` and `val/`, of the classes `CLASSES`.
        trained: a run that has ended, which each run that the page does not make is a copy of.
    """
    for name in IMAGE_FOLDERS:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(images)
    (root / "shared").mkdir()  # a folder that several machines see
    (root / "recipes").symlink_to(REPOSITORY / "recipes")
    shutil.copy(images / "val/star/1.jpg", root / "photo.jpg")
    shutil.copytree(images / "val/star", root / "photos")
    made = set(re.findall(r"--workspace (runs/[\w-]+)", text))
    for run in sorted(set(re.findall(r"runs/[\w-]+", text)) - made):
        shutil.copytree(trained, root / run, copy_function=os.link)
    if "images.zip" in text:
        _write_archives(images, root)
    if "labels." in text:
        _write_tables(images, root)
    if "wnids.txt" in text:
        _write_imagenet(root)
    if " model.onnx" in text:
        _export(root)
