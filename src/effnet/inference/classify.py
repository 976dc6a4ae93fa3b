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
from effnet.inference.classifier import Answer, Classifier
from effnet.inference.engine import Engine
from effnet.inference.images import NamedImage, named_images
from effnet.runtime.text import printable, to_json

STANDARD_INPUT = "-"

_ANY_WIDTH = 1 << 16


def classify(
    engine: Engine,
    arguments: Sequence[str],
    *,
    topk: int | None,
    batch_size: int,
    as_json: bool,
    unknown: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Classify the images that `arguments` name and print the predictions; ``-`` reads one from standard input.

    Args:
        engine: the model.
        arguments: files, folders and patterns.
        topk: predictions for each image.
        batch_size: images in a batch.
        as_json: print one JSON object in place of tables.
        unknown: answer `unknown` for images of none of the classes.
        max_pixels: pixels above which an image is refused.

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
        results = Classifier(engine, batch_size=batch_size, unknown=unknown).each(images, topk=topk)
        return _print_json(engine, results, unknown) if as_json else _print_tables(results)


def _standard_input(folder: Path, max_pixels: int) -> Path:
    path = folder / "standard input"
    path.write_bytes(sys.stdin.buffer.read(most_bytes(max_pixels) + 1))  # it may have no end
    return path


Results = Iterator[tuple[NamedImage, Answer | BadImageError]]


def _print_json(engine: Engine, results: Results, unknown: bool) -> int:
    images: list[dict[str, Any]] = []
    failed = False
    for image, answer in results:
        if isinstance(answer, BadImageError):
            images.append({"image": image.name, "error": str(answer)})
            failed = True
        else:
            rule = {"unknown": answer.is_unknown} if unknown else {}
            predictions = [asdict(prediction) for prediction in answer.predictions]
            images.append({"image": image.name, **rule, "predictions": predictions})
    print(to_json({"model": engine.metadata.model, "images": images}))
    return 2 if failed else 0


def _print_tables(results: Results) -> int:
    # Wider than any name, which a narrow terminal would otherwise cut off.
    console, failed = Console(highlight=False, soft_wrap=True, width=_ANY_WIDTH), False
    for image, answer in results:
        if isinstance(answer, BadImageError):
            print(f"error: {printable(answer)}", file=sys.stderr)
            failed = True
            continue
        table = Table(title=Text(printable(image.name)), box=None, show_header=False, title_justify="left")
        table.add_column(justify="right")
        table.add_column()
        table.add_column()
        if answer.is_unknown:
            table.add_row("", "unknown", "")
        for prediction in () if answer.is_unknown else answer.predictions:
            bar = "█" * round(20 * prediction.probability)
            table.add_row(f"{100 * prediction.probability:.1f} %", Text(printable(prediction.name)), bar)
        console.print(table)
    return 2 if failed else 0
