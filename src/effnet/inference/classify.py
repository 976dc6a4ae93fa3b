"""Classification of image files."""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from effnet.data.decode import BadImageError
from effnet.inference.classifier import Classifier, Prediction
from effnet.inference.engine import Engine
from effnet.inference.images import NamedImage, named_images

STANDARD_INPUT = "-"


def classify(engine: Engine, arguments: Sequence[str], *, topk: int, batch_size: int, as_json: bool) -> int:
    """Classify the images that `arguments` name and print the predictions; ``-`` reads one from standard input.

    Returns:
        Exit code: 0, or 2 if a file could not be decoded; that is said on standard error, the others are classified.

    Raises:
        UserError: an argument that names no image.
    """
    with tempfile.TemporaryDirectory() as folder:
        images = [
            image
            for argument in arguments
            for image in named_images(
                _standard_input(Path(folder)) if argument == STANDARD_INPUT else argument
            )
        ]
        results = Classifier(engine, batch_size=batch_size).each(images, topk=topk)
        return _print_json(engine, results) if as_json else _print_tables(results)


def _standard_input(folder: Path) -> Path:
    path = folder / "standard input"
    path.write_bytes(sys.stdin.buffer.read())
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
    print(json.dumps({"model": engine.metadata.model, "images": images}))
    return 2 if failed else 0


def _print_tables(results: Results) -> int:
    console, failed = Console(highlight=False, soft_wrap=True), False
    for image, answers in results:
        if isinstance(answers, BadImageError):
            print(f"error: {answers}", file=sys.stderr)
            failed = True
            continue
        table = Table(title=image.name, box=None, show_header=False, title_justify="left")
        table.add_column(justify="right")
        table.add_column()
        table.add_column()
        for answer in answers:
            bar = "█" * round(20 * answer.probability)
            table.add_row(f"{100 * answer.probability:.1f} %", answer.name, bar)
        console.print(table)
    return 2 if failed else 0
