"""Classification of image files."""

import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from effnet.data.decode import BadImageError
from effnet.data.limits import MAX_PIXELS, most_bytes
from effnet.inference.classifier import Answer, Classifier, Prediction
from effnet.inference.engine import Engine
from effnet.inference.explain import Explainer, PictureNames, write_picture
from effnet.inference.heat_maps import DEFAULT_LAYER, DEFAULT_METHOD
from effnet.inference.images import NamedImage, named_images
from effnet.runtime.disk import check_writable
from effnet.runtime.text import printable, to_json

STANDARD_INPUT = "-"

_ANY_WIDTH = 1 << 16


@dataclass(frozen=True)
class HeatMapSettings:
    """The heat maps that are wanted beside the answers.

    Attributes:
        folder: folder of the pictures; it is made.
        label: as in `effnet.inference.explain.Explainer`, like the following ones.
        method: a key of `effnet.inference.heat_maps.METHODS`.
        layer: a key of `effnet.inference.heat_maps.layers_of`.
    """

    folder: Path
    label: str | None = None
    method: str = DEFAULT_METHOD
    layer: str = DEFAULT_LAYER


def classify(
    engine: Engine,
    arguments: Sequence[str],
    *,
    topk: int | None,
    batch_size: int,
    as_json: bool,
    unknown: bool = False,
    max_pixels: int = MAX_PIXELS,
    explain: HeatMapSettings | None = None,
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
        explain: heat maps to write; None for none.

    Returns:
        Exit code: 0, or 2 if a file could not be decoded; that is said on standard error, the others are classified.

    Raises:
        UserError: an argument that names no image, an answer of the model that is not finite, or heat maps that this
            engine can't make or that can't be written.
    """
    classifier = Classifier(engine, batch_size=batch_size, unknown=unknown)
    explainer = None if explain is None else _explainer(classifier, explain)
    with tempfile.TemporaryDirectory() as folder:
        images = [
            image
            for argument in arguments
            for image in named_images(
                _standard_input(Path(folder), max_pixels) if argument == STANDARD_INPUT else argument,
                max_pixels=max_pixels,
            )
        ]
        results: Results = (Result(*pair) for pair in classifier.each(images, topk=topk))
        if explain is not None and explainer is not None:
            results = _with_pictures(results, explainer, explain.folder, Path(folder), images)
        return _print_json(engine, results, unknown) if as_json else _print_tables(results)


def _standard_input(folder: Path, max_pixels: int) -> Path:
    path = folder / "standard input"
    path.write_bytes(sys.stdin.buffer.read(most_bytes(max_pixels) + 1))  # it may have no end
    return path


class Picture(NamedTuple):
    """The picture of a heat map: its file, and the class that it explains."""

    file: Path
    prediction: Prediction


class Result(NamedTuple):
    """An image with its answer, or with the reason why it can't be decoded."""

    image: NamedImage
    answer: Answer | BadImageError
    picture: Picture | None = None


Results = Iterator[Result]


def _explainer(classifier: Classifier, settings: HeatMapSettings) -> Explainer:
    explainer = Explainer(classifier, label=settings.label, method=settings.method, layer=settings.layer)
    check_writable(settings.folder / "heat-map.jpg", make_folder=True, flag="--explain")
    return explainer


def _with_pictures(
    results: Results, explainer: Explainer, folder: Path, scratch: Path, images: Iterable[NamedImage]
) -> Results:
    """Yield results with the pictures of their heat maps, which are written to `folder`.

    What lies in `scratch` came from standard input, and its picture has no folder of its own.
    """

    def own(image: NamedImage) -> str:
        return image.name.removeprefix(f"{scratch}/")

    names = PictureNames([own(image) for image in images], explainer.method)
    for result in results:
        if isinstance(result.answer, BadImageError):
            yield result
            continue
        explanation = next(explainer.each([result.image]))
        if isinstance(explanation, BadImageError):  # removed meanwhile
            yield result._replace(answer=explanation)
            continue
        path = folder / names(own(result.image))
        write_picture(explanation, path)
        yield result._replace(picture=Picture(path, explanation.prediction))


def _print_json(engine: Engine, results: Results, unknown: bool) -> int:
    images: list[dict[str, Any]] = []
    failed = False
    for image, answer, picture in results:
        heat = {} if picture is None else {"heat_map": _plain(picture)}
        images.append({**as_json_object(image.name, answer, unknown=unknown), **heat})
        failed = failed or isinstance(answer, BadImageError)
    print(to_json({"model": engine.metadata.model, "images": images}))
    return 2 if failed else 0


def _plain(picture: Picture) -> dict[str, Any]:
    return {"file": str(picture.file), "class": asdict(picture.prediction)}


def as_json_object(name: str, answer: Answer | BadImageError, *, unknown: bool) -> dict[str, Any]:
    """Return an image's answer, or the reason why it has none, for JSON.

    Args:
        name: the image's name.
        answer: of a classifier.
        unknown: say whether the image is of none of the classes.
    """
    if isinstance(answer, BadImageError):
        return {"image": name, "error": str(answer)}
    rule = {"unknown": answer.is_unknown} if unknown else {}
    return {"image": name, **rule, "predictions": [asdict(prediction) for prediction in answer.predictions]}


def _print_tables(results: Results) -> int:
    # Wider than any name, which a narrow terminal would otherwise cut off.
    console, failed = Console(highlight=False, soft_wrap=True, width=_ANY_WIDTH), False
    for image, answer, picture in results:
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
        if picture is not None:
            of = f"heat map of {picture.prediction.name}: {picture.file}"
            console.print(Text(f"  {printable(of)}"))
    return 2 if failed else 0
