"""A look at each of many image files, by several processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from effnet.data.folder import ImageFolder
from effnet.data.position import Indices
from effnet.data.workers import unchanged
from effnet.runtime.errors import UserError

Result = TypeVar("Result")
IMAGES_AT_ONCE = 64


def surveyed(
    look: Callable[[ImageFolder, Indices], Result],
    images: ImageFolder,
    indices: Indices,
    *,
    workers: int,
    at_once: int = IMAGES_AT_ONCE,
) -> Iterator[tuple[Indices, Result]]:
    """Yield each part of `indices` with the result of `look(images, part)`.

    Args:
        look: called in the worker processes, or in this one if there are none or only one part.
        workers: processes at most.
        at_once: images of a part.

    Raises:
        UserError: a worker was killed.
    """
    parts = [indices[first : first + at_once] for first in range(0, len(indices), at_once)]
    # The DataLoader for its processes: they end by themselves when this one is killed.
    results = DataLoader(
        _Looks(look, images, parts),
        batch_size=None,
        num_workers=min(workers, len(parts)) if len(parts) > 1 else 0,
        collate_fn=unchanged,
        generator=torch.Generator(),  # else it would draw from the training's
    )
    try:
        yield from zip(parts, results, strict=True)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that checks images was killed, maybe for want of memory; take fewer with --workers"
        ) from None


class _Looks(Dataset[Any]):
    def __init__(
        self, look: Callable[[ImageFolder, Indices], Any], images: ImageFolder, parts: list[Indices]
    ) -> None:
        self.look, self.images, self.parts = look, images, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> Any:
        return self.look(self.images, self.parts[number])


@contextmanager
def progress_bar(total: int, *, show: bool) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on a terminal; yield a function that adds a number of finished images."""
    console = Console(stderr=True)
    columns = (TextColumn("checking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = show and console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task("checking", total=total)
        yield lambda more: progress.advance(task, more)
