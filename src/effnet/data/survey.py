"""A look at each of many image files, by several processes."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, TypeVar

from torch.utils.data import Dataset

from effnet.data.folder import ImageFolder
from effnet.data.position import Indices
from effnet.data.watched import DATA_TIMEOUT_S, WatchedLoader, reading

Result = TypeVar("Result")
IMAGES_AT_ONCE = 64


def surveyed(
    look: Callable[[ImageFolder, Indices], Result],
    images: ImageFolder,
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
        self, look: Callable[[ImageFolder, Indices], Any], images: ImageFolder, parts: list[Indices]
    ) -> None:
        self.look, self.images, self.parts = look, images, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> Any:
        with reading() as note:
            return self.look(_Noted.of(self.images, note), self.parts[number])


class _Noted(ImageFolder):
    """An `ImageFolder` that calls `note` with the index of each image whose file is asked for."""

    note: Callable[[int], None]

    @classmethod
    def of(cls, images: ImageFolder, note: Callable[[int], None]) -> "_Noted":
        """Return a view of `images`."""
        noted = cls(**{field.name: getattr(images, field.name) for field in fields(images)})
        object.__setattr__(noted, "note", note)  # the class is frozen
        return noted

    def file(self, index: int) -> str:
        """See `ImageFolder`; `path` asks this too."""
        self.note(index)
        return super().file(index)
