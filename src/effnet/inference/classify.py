"""Classification of image files."""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from effnet.data.decode import BadImageError
from effnet.data.limits import MAX_PIXELS, most_bytes
from effnet.inference.classifier import Classifier, Prediction
from effnet.inference.engine import Engine
from effnet.inference.images import NamedImage, named_images
from effnet.runtime.text import printable, to_json

STANDARD_INPUT = "-"

_ANY_WIDTH = 1 << 16


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
        images = [
            image
            for argument in arguments
            for image in named_images(
                _standard_input(Path(folder), max_pixels) if argument == STANDARD_INPUT else argument,
                max_pixels=max_pixels,
            )
        ]
        results = Classifier(engine, batch_size=batch_size).each(images, topk=topk)
        return _print_json(engine, results) if as_json else _print_tables(results)


def _standard_input(folder: Path, max_pixels: int) -> Path:
    path = folder / "standard input"
    path.write_bytes(sys.stdin.buffer.read(most_bytes(max_pixels) + 1))  # it may have no end
    return path


Results = Iterator[tuple[NamedImage, list[Prediction] | BadImageError]]


def _print_json(engine: Engine, results: Results) -> int:
    images: list[dict[str, Any]] = []
    failed = False
    for image, answers in results:
        if isinstance(answers, BadImageError):
            images.append({"image": image.name, "error": str(answers)})
            failed = True
        else:
            images.append({"image": image.name, "predictions": [asdict(answer) for answer in answers]})
    print(to_json({"model": engine.metadata.model, "images": images}))
    return 2 if failed else 0


def _print_tables(results: Results) -> int:
    # Wider than any name, which a narrow terminal would otherwise cut off.
    console, failed = Console(highlight=False, soft_wrap=True, width=_ANY_WIDTH), False
    for image, answers in results:
        if isinstance(answers, BadImageError):
            print(f"error: {printable(answers)}", file=sys.stderr)
            failed = True
            continue
        table = Table(title=Text(printable(image.name)), box=None, show_header=False, title_justify="left")
        table.add_column(justify="right")
        table.add_column()
        table.add_column()
        for answer in answers:
            bar = "█" * round(20 * answer.probability)
            table.add_row(f"{100 * answer.probability:.1f} %", Text(printable(answer.name)), bar)
        console.print(table)
    return 2 if failed else 0
