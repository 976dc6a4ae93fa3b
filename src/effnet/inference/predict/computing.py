"""From images to the parts of a table: workers decode, this process asks the model."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, get_worker_info

from effnet.data.decode import BadImageError, tell_decoder
from effnet.data.sources import SourceImages
from effnet.data.transforms import ValTransform
from effnet.data.watched import WatchedLoader, reading
from effnet.inference.predict.answers import Answers
from effnet.inference.predict.columns import Rows
from effnet.inference.predict.formats.csv import csv_bytes
from effnet.inference.predict.formats.form import OutputFormat
from effnet.runtime.errors import UserError


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


class _Decoded(NamedTuple):
    """A batch as it comes from a worker.

    Attributes:
        pixels: uint8 (N, image_size, image_size, 3), of those that can be decoded.
        paths: their names.
        bad: names of the others, and why.
    """

    pixels: torch.Tensor
    paths: list[str]
    bad: list[tuple[str, str]]


class _Batches(Dataset[Any]):
    """Batches by their range of images. A failure is a value: raised, it would come with a worker's traceback."""

    def __init__(self, images: SourceImages, transform: ValTransform) -> None:
        self.images, self.transform = images, transform
        self.side = transform.preprocessing.image_size

    def __getitem__(self, batch: range) -> _Decoded | UserError:
        try:
            with reading() as note:
                return self._decoded(batch, note)
        except UserError as error:
            return error

    def _decoded(self, batch: range, note: Any) -> _Decoded:
        pixels = torch.empty((len(batch), self.side, self.side, 3), dtype=torch.uint8)
        if get_worker_info() is not None:
            pixels.share_memory_()  # written where the other process will read it
        rows = pixels.numpy()
        paths: list[str] = []
        bad: list[tuple[str, str]] = []
        for index, open_image in zip(batch, self.images.read(list(batch)), strict=True):
            note(index)
            try:
                rows[len(paths)] = self.transform(open_image())
            except BadImageError as error:
                bad.append((_name(self.images, index), error.reason))
            else:
                paths.append(_name(self.images, index))
        return _Decoded(pixels[: len(paths)], paths, bad)


def _name(images: SourceImages, index: int) -> str:
    """Return an image's name in the source, with bytes that are not UTF-8 as escape sequences."""
    return images.name(index).encode("utf-8", "backslashreplace").decode()


class _Ranges(Sampler[Any]):
    """The batches of some parts, in order."""

    def __init__(self, parts: Sequence[range], batch_size: int) -> None:
        self.parts, self.batch_size = parts, batch_size

    def __iter__(self) -> Iterator[range]:
        for part in self.parts:
            for first in range(part.start, part.stop, self.batch_size):
                yield range(first, min(first + self.batch_size, part.stop))


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
    tell_decoder()
    ranges = [range(n * part, min((n + 1) * part, len(images))) for n in numbers]
    batches = iter(
        WatchedLoader(
            _Batches(images, ValTransform(answers.engine.preprocessing)),
            workers=workers,
            name_of=images.file,
            batch_size=None,
            sampler=_Ranges(ranges, batch_size),
            prefetch_factor=4 if workers else None,
        )
    )
    for number, wanted in zip(numbers, ranges, strict=True):
        yield _computed_part(number, wanted, batches, answers, form)


def _computed_part(
    number: int, wanted: range, batches: Iterator[Any], answers: Answers, form: OutputFormat
) -> Part:
    rows: list[Rows] = []
    bad: list[tuple[str, str]] = []
    done = 0
    while done < len(wanted):
        batch = next(batches)
        if isinstance(batch, UserError):
            raise batch
        done += len(batch.paths) + len(batch.bad)
        bad += batch.bad
        if batch.paths:
            rows.append(answers(batch.pixels.numpy(), batch.paths))
    gathered = {column.name: _joined([each[column.name] for each in rows]) for column in answers.columns}
    return Part(number, done, form.encode(answers.columns, gathered), csv_bytes(bad))


def _joined(values: list[Any]) -> Any:
    if values and isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    return [value for each in values for value in each]
