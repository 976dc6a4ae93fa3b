"""Classification of image files."""

import glob
import os
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
from rich.text import Text

from effnet.data.decode import BadImageError, EncodedImage, Pixels
from effnet.data.folder import IMAGE_SUFFIXES
from effnet.data.limits import MAX_PIXELS, most_bytes
from effnet.data.transforms import ValTransform
from effnet.inference.engine import Engine
from effnet.runtime.errors import UserError
from effnet.runtime.text import printable, to_json

STANDARD_INPUT = "-"

_ANY_WIDTH = 1 << 16


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
        max_pixels: pixels that an image may have.
    """

    def __init__(
        self, engine: Engine, *, topk: int = 5, batch_size: int = 16, max_pixels: int = MAX_PIXELS
    ) -> None:
        self.engine = engine
        self.topk = topk
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self._transform = ValTransform(engine.preprocessing)
        self._names = engine.metadata.class_names()
        self._folders = engine.metadata.class_folders()

    def __call__(self, paths: Sequence[Path]) -> Iterator[tuple[Path, list[Prediction] | BadImageError]]:
        """Yield each path with its predictions, or with the file's error, in the order of `paths`.

        Raises:
            UserError: the model's answer for an image is not finite.
        """
        for first in range(0, len(paths), self.batch_size):
            some = paths[first : first + self.batch_size]
            images = [self._load(path) for path in some]
            good = [image for image in images if not isinstance(image, BadImageError)]
            answers = iter(self.engine(np.stack(good)) if good else ())
            for path, image in zip(some, images, strict=True):
                yield path, image if isinstance(image, BadImageError) else self._best(path, next(answers))

    def _load(self, path: Path) -> Pixels | BadImageError:
        try:
            return self._transform(EncodedImage(path, max_pixels=self.max_pixels))
        except BadImageError as error:
            return error

    def _best(self, path: Path, probabilities: npt.NDArray[np.float32]) -> list[Prediction]:
        if not np.isfinite(probabilities).all():
            raise UserError(
                f"{path}: the logits of {self.engine.metadata.model} are not finite for it; check the weights "
                "(were they taken from a training that diverged?), or give --precision fp32"
            )
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
        try:
            paths += _found(argument)
        except OSError as error:
            raise UserError(f"{error.filename or argument}: {error.strerror}") from None
    return paths


def _found(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        if not (found := _images_below(path)):
            raise UserError(f"{argument}: holds no images")
        return found
    if path.exists():
        return [path]
    if not (found := sorted(match for match in _matches(argument) if match.is_file())):
        raise UserError(f"{argument}: no such image")
    return found


def _images_below(folder: Path) -> list[Path]:
    """Return the images in a folder and those in it, sorted. Links to folders, which may form a loop, are left out."""
    found: list[Path] = []
    folders = [os.fspath(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif os.fsencode(entry.name).lower().endswith(IMAGE_SUFFIXES) and Path(entry.path).is_file():
                    found.append(Path(entry.path))
    return sorted(found)


def _matches(pattern: str) -> list[Path]:
    parts = Path(pattern).parts
    if "**" not in parts:
        return [Path(name) for name in glob.glob(pattern)]
    # Links to folders, which may form a loop, are followed by glob, not by pathlib. That in turn finds hidden files.
    root, parts = (Path(parts[0]), parts[1:]) if Path(pattern).is_absolute() else (Path(), parts)
    found = root.glob(os.path.join(*parts))
    return [
        match
        for match in found
        if not any(part.startswith(".") for part in set(match.parts).difference(parts))
    ]


def classify(
    engine: Engine,
    arguments: Sequence[str],
    *,
    topk: int,
    batch_size: int,
    as_json: bool,
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Classify the images that `arguments` name and print the predictions; ``-`` reads one from standard input.

    Returns:
        Exit code: 0, or 2 if a file could not be decoded; that is said on standard error, the others are classified.

    Raises:
        UserError: an argument that names no image, or an answer of the model that is not finite.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            path
            for argument in arguments
            for path in (
                [_standard_input(Path(folder), max_pixels)]
                if argument == STANDARD_INPUT
                else find_images([argument])
            )
        ]
        results = Classifier(engine, topk=topk, batch_size=batch_size, max_pixels=max_pixels)(paths)
        return _print_json(engine, results) if as_json else _print_tables(results)


def _standard_input(folder: Path, max_pixels: int) -> Path:
    path = folder / "standard input"
    path.write_bytes(sys.stdin.buffer.read(most_bytes(max_pixels) + 1))  # it may have no end
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
    print(to_json({"model": engine.metadata.model, "images": images}))
    return 2 if failed else 0


def _print_tables(results: Results) -> int:
    # Wider than any name, which a narrow terminal would otherwise cut off.
    console, failed = Console(highlight=False, soft_wrap=True, width=_ANY_WIDTH), False
    for path, answers in results:
        if isinstance(answers, BadImageError):
            print(f"error: {printable(answers)}", file=sys.stderr)
            failed = True
            continue
        table = Table(title=Text(printable(path)), box=None, show_header=False, title_justify="left")
        table.add_column(justify="right")
        table.add_column()
        table.add_column()
        for answer in answers:
            bar = "█" * round(20 * answer.probability)
            table.add_row(f"{100 * answer.probability:.1f} %", Text(printable(answer.name)), bar)
        console.print(table)
    return 2 if failed else 0
