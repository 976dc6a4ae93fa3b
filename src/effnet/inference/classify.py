"""Classification of image files."""

import glob
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from effnet.data.decode import BadImageError, EncodedImage, Pixels
from effnet.data.folder import IMAGE_SUFFIXES
from effnet.data.transforms import ValTransform
from effnet.inference.engine import Engine
from effnet.runtime.errors import UserError

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Prediction:
    """One predicted class.

    Attributes:
        index: position among the model's classes.
        folder: the class's folder name in a data set, ImageNet's wnid for instance; empty if unknown.
        name: the class's name for people.
        probability: in [0, 1].
    """

    index: int
    folder: str
    name: str
    probability: float


class Classifier:
    """Predictions for image files.

    Args:
        engine: the model.
        topk: predictions for each image, the most probable first.
        batch_size: images in a batch.
    """

    def __init__(self, engine: Engine, *, topk: int = 5, batch_size: int = 16) -> None:
        self.engine = engine
        self.topk = topk
        self.batch_size = batch_size
        self._transform = ValTransform(engine.preprocessing)
        self._names = engine.metadata.class_names()
        self._folders = engine.metadata.class_folders()

    def __call__(self, paths: Sequence[Path]) -> Iterator[tuple[Path, list[Prediction] | BadImageError]]:
        """Yield each path with its predictions, or with the file's error, in the order of `paths`."""
        for first in range(0, len(paths), self.batch_size):
            some = paths[first : first + self.batch_size]
            images = [self._load(path) for path in some]
            good = [image for image in images if not isinstance(image, BadImageError)]
            answers = iter(self.engine(np.stack(good)) if good else ())
            for path, image in zip(some, images, strict=True):
                yield path, image if isinstance(image, BadImageError) else self._best(next(answers))

    def _load(self, path: Path) -> Pixels | BadImageError:
        try:
            return self._transform(EncodedImage(path))
        except BadImageError as error:
            return error

    def _best(self, probabilities: npt.NDArray[np.float32]) -> list[Prediction]:
        return [
            Prediction(
                index=int(index),
                folder=self._folders[index] if self._folders else "",
                name=self._names[index] if self._names else f"class {index}",
                probability=float(probabilities[index]),
            )
            for index in np.argsort(-probabilities, kind="stable")[: self.topk]
        ]


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Return the image files of arguments: files, folders (all images below them) and patterns such as ``*.jpg``.

    Raises:
        UserError: an argument that names none.
    """
    paths: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if _is_image(p))
        elif path.exists():
            found = [path]
        else:
            found = [
                Path(name) for name in sorted(glob.glob(argument, recursive=True)) if Path(name).is_file()
            ]
        if not found:
            raise UserError(f"{argument}: " + ("holds no images" if path.is_dir() else "no such image"))
        paths += found
    return paths


def _is_image(path: Path) -> bool:
    return path.name.lower().encode().endswith(IMAGE_SUFFIXES) and path.is_file()


def classify(engine: Engine, arguments: Sequence[str], *, topk: int, batch_size: int, as_json: bool) -> int:
    """Classify the images that `arguments` name and print the predictions; ``-`` reads one from standard input.

    Returns:
        Exit code: 0, or 2 if a file could not be decoded; that is said on standard error, the others are classified.

    Raises:
        UserError: an argument that names no image.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            path
            for argument in arguments
            for path in (
                [_standard_input(Path(folder))] if argument == STANDARD_INPUT else find_images([argument])
            )
        ]
        results = Classifier(engine, topk=topk, batch_size=batch_size)(paths)
        return _print_json(engine, results) if as_json else _print_tables(results)


def _standard_input(folder: Path) -> Path:
    path = folder / "standard input"
    path.write_bytes(sys.stdin.buffer.read())
    return path


Results = Iterator[tuple[Path, list[Prediction] | BadImageError]]


def _print_json(engine: Engine, results: Results) -> int:
    images: list[dict[str, Any]] = []
    failed = False
    for path, answers in results:
        if isinstance(answers, BadImageError):
            images.append({"image": str(path), "error": str(answers)})
            failed = True
        else:
            images.append({"image": str(path), "predictions": [asdict(answer) for answer in answers]})
    print(json.dumps({"model": engine.metadata.model, "images": images}))
    return 2 if failed else 0


def _print_tables(results: Results) -> int:
    console, failed = Console(highlight=False, soft_wrap=True), False
    for path, answers in results:
        if isinstance(answers, BadImageError):
            print(f"error: {answers}", file=sys.stderr)
            failed = True
            continue
        table = Table(title=str(path), box=None, show_header=False, title_justify="left")
        table.add_column(justify="right")
        table.add_column()
        table.add_column()
        for answer in answers:
            bar = "█" * round(20 * answer.probability)
            table.add_row(f"{100 * answer.probability:.1f} %", answer.name, bar)
        console.print(table)
    return 2 if failed else 0
