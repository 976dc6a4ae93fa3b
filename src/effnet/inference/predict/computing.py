"""From images to the parts of a table."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from effnet.data.sources import SourceImages
from effnet.inference.decoded import Decoded, decoded_batches
from effnet.inference.predict.answers import Answers
from effnet.inference.predict.columns import Rows
from effnet.inference.predict.formats.csv import csv_bytes
from effnet.inference.predict.formats.form import OutputFormat


class Part(NamedTuple):
    """A finished part.

    Attributes:
        number: its position among the parts.
        images: how many it is about.
        content: its rows, as the format encodes them.
        bad: images that can't be decoded and why, as lines of CSV; empty where there are none.
    """

    number: int
    images: int
    content: bytes
    bad: bytes


def computed(
    images: SourceImages,
    answers: Answers,
    form: OutputFormat,
    numbers: Sequence[int],
    *,
    part: int,
    batch_size: int,
    workers: int,
) -> Iterator[Part]:
    """Yield parts of a table, in the order of `numbers`.

    Args:
        images: the source.
        answers: the model.
        form: encodes the rows.
        numbers: the parts; part n is about images n * part to (n + 1) * part, the last one about fewer.
        part: images of a part.
        batch_size: images in a batch.
        workers: processes that decode; 0 to do it in this one.

    Raises:
        UserError: a worker was killed or is stuck, the source can't be read, or logits are not finite.
    """
    ranges = [range(n * part, min((n + 1) * part, len(images))) for n in numbers]
    batches = decoded_batches(
        images, [answers.engine.preprocessing], ranges, batch_size=batch_size, workers=workers
    )
    for number, wanted in zip(numbers, ranges, strict=True):
        yield _computed_part(number, wanted, batches, answers, form)


def _computed_part(
    number: int, wanted: range, batches: Iterator[Decoded], answers: Answers, form: OutputFormat
) -> Part:
    rows: list[Rows] = []
    bad: list[tuple[str, str]] = []
    done = 0
    while done < len(wanted):
        batch = next(batches)
        done += batch.images
        bad += batch.bad
        if batch.paths:
            (pixels,) = batch.pixels
            rows.append(answers(pixels.numpy(), batch.paths))
    gathered = {column.name: _joined([each[column.name] for each in rows]) for column in answers.columns}
    return Part(number, done, form.encode(answers.columns, gathered), csv_bytes(bad))


def _joined(values: list[Any]) -> Any:
    if values and isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    return [value for each in values for value in each]
