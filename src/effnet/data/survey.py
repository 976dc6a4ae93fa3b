"""A look at each of many images, by several processes."""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from torch.utils.data import Dataset

from effnet.data.position import Indices
from effnet.data.sources import SourceImages
from effnet.data.watched import DATA_TIMEOUT_S, WatchedLoader, reading

Result = TypeVar("Result")
IMAGES_AT_ONCE = 64


def surveyed(
    look: Callable[[SourceImages, Indices], Result],
    images: SourceImages,
    indices: Indices,
    *,
    workers: int,
    at_once: int = IMAGES_AT_ONCE,
    timeout: float = DATA_TIMEOUT_S,
) -> Iterator[tuple[Indices, Result]]:
    """Yield each part of `indices` with the result of `look(images, part)`.

    Args:
        look: called in the worker processes, or in this one if there are none or only one part.
        workers: processes at most.
        at_once: images of a part.
        timeout: seconds without a result after which a process counts as stuck.

    Raises:
        UserError: a process was killed, or is stuck.
    """
    parts = [indices[first : first + at_once] for first in range(0, len(indices), at_once)]
    results = WatchedLoader(
        _Looks(look, images, parts),
        workers=min(workers, len(parts)) if len(parts) > 1 else 0,
        timeout=timeout,
        name_of=images.file,
        batch_size=None,
    )
    yield from zip(parts, results, strict=True)


class _Looks(Dataset[Any]):
    def __init__(
        self, look: Callable[[SourceImages, Indices], Any], images: SourceImages, parts: list[Indices]
    ) -> None:
        self.look, self.images, self.parts = look, images, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> Any:
        with reading() as note:
            return self.look(_noted(self.images, note), self.parts[number])


def _noted(images: SourceImages, note: Callable[[int], None]) -> SourceImages:
    """Return a view of `images` that calls `note` with the index of each image that is asked for."""
    view = copy.copy(images)
    for name in ("file", "key", "content", "image"):
        object.__setattr__(view, name, partial(_after_note, getattr(images, name), note))  # it may be frozen
    return view


def _after_note(ask: Callable[[int], Any], note: Callable[[int], None], index: int) -> Any:
    note(index)
    return ask(index)
