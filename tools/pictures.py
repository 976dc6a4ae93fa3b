"""Draw the pictures of the documentation, from a folder in which `tools/tutorial.py` has run.

python tools/tutorial.py FOLDER
python tools/pictures.py FOLDER
"""

import argparse
import csv
import subprocess
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

import effnet

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
LARGEST = 100_000
"""bytes of a picture"""

_RUN = "runs/digits"
_INT8 = "digits-int8.onnx"


def digits(folder: Path, path: Path) -> None:
    """Draw validation images of every class with the INT8 model's answers."""
    classifier = effnet.load(folder / _INT8)
    figure = Figure(figsize=(8, 2.6), dpi=110, layout="constrained")
    axes = figure.subplots(2, 10)
    for column in range(10):
        for row, file in enumerate(sorted((folder / f"digits/val/{column}").iterdir())[:2]):
            best = classifier(file).best
            place = axes[row][column]
            place.imshow(Image.open(file))
            place.set_axis_off()
            place.set_title(f"{best.name}\n{100 * best.probability:.0f} %", fontsize=9)
    figure.savefig(path)


def training(folder: Path, path: Path) -> None:
    """Draw loss and top-1 accuracy of the tutorial's training by epoch."""
    history = effnet.Run(folder / _RUN).history
    epochs = range(1, len(history) + 1)
    figure = Figure(figsize=(8, 3), dpi=110, layout="constrained")
    loss, top1 = figure.subplots(1, 2)
    loss.plot(epochs, [epoch["train.loss"] for epoch in history], "o-", label="training (smoothed targets)")
    loss.plot(epochs, [epoch["val.loss"] for epoch in history], "s--", label="validation")
    loss.set_ylabel("loss")
    loss.legend()
    top1.plot(epochs, [epoch["val.top1"] for epoch in history], "s--", color="C1")
    top1.set_ylabel("validation, top-1 (%)")
    for axes in (loss, top1):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    figure.savefig(path)


def classes(folder: Path, path: Path) -> None:
    """Draw precision and recall of each class, from the table of `effnet evaluate`."""
    with (folder / "classes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(8, 2.8), dpi=110, layout="constrained")
    axes = figure.subplots()
    for shift, name in ((-0.2, "precision"), (0.2, "recall")):
        places = [index + shift for index in range(len(rows))]
        axes.bar(places, [float(row[name]) for row in rows], width=0.4, label=name)
    axes.set_xticks(range(len(rows)), [row["class"] for row in rows])
    axes.set_xlabel("class")
    axes.legend(loc="lower right")
    figure.savefig(path)


def main() -> int:
    """Draw all pictures; return the exit code."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the documentation.")
    parser.add_argument("folder", type=Path, help="where tools/tutorial.py has run")
    folder = parser.parse_args().folder
    matplotlib.use("agg")
    PICTURES.mkdir(exist_ok=True)
    for draw in (digits, training, classes):
        draw(folder, PICTURES / f"{draw.__name__}.png")
    effnet_commands = {
        "reliability.png": f"evaluate digits --resume {_RUN}/model_best.pth.tar --reliability",
        "find-lr.png": "find-lr digits --recipe recipe.yaml --hflip 0 --crop-scale 0.7 1 --plot",
    }
    for name, arguments in effnet_commands.items():
        command = [sys.executable, "-m", "effnet", *arguments.split(), str(PICTURES / name)]
        subprocess.run(command, cwd=folder, check=True)
    for path in sorted(PICTURES.glob("*.png")):
        assert path.stat().st_size < LARGEST, path
        print(path, path.stat().st_size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
