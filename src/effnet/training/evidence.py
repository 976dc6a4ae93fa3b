"""The images of batches with a value that is not finite: files and seeds, from which a bad step can be reproduced."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from effnet.runtime.processes import Processes

_SHOWN = 3


class Evidence(NamedTuple):
    """One process's part of a batch.

    Attributes:
        batch: position of the batch in the epoch, from 1.
        loss: mean loss of the process's images.
        has_finite_statistics: True if the buffers of the process's model are finite after the batch.
        indices: int64 (N,): positions of the images in their split; None for images without one.
    """

    batch: int
    loss: float
    has_finite_statistics: bool
    indices: Tensor | None

    @property
    def is_sound(self) -> bool:
        """True if the process has seen nothing that is not finite."""
        return self.has_finite_statistics and math.isfinite(self.loss)


class EvidenceFinder:
    """Collects the parts of all processes in bad steps.

    Args:
        processes: the processes of the run.
        seed: seed of the run. Of (seed, epoch, index) follows an image's augmentation, of (seed, epoch, batch, rank) a
            batch's mixup.
        name_of: returns the file name of an image from its position in the training split; None without files.
    """

    def __init__(self, processes: Processes, seed: int, name_of: Callable[[int], str] | None) -> None:
        self._processes = processes
        self._seed = seed
        self._name_of = name_of

    def find(self, steps: Sequence[Sequence[Evidence]]) -> list[dict[str, Any]]:
        """Describe bad steps; every process must call this with the same steps.

        Args:
            steps: for each bad step, this process's parts of its batches.

        Returns:
            For each step the entries `seed`, `world_size` and `batches` of its event. The latter are the parts in which
            the loss or a statistic is not finite, or all where none is, each with `rank`, `batch`, `loss`, `indices`
            and, where there are files, `files`.
        """
        by_rank = self._processes.gather([[_plain(part) for part in parts] for parts in steps])
        return [
            {
                "seed": self._seed,
                "world_size": self._processes.world_size,
                "batches": self._culprits(
                    [(rank, part) for rank, each in enumerate(of_step) for part in each]
                ),
            }
            for of_step in zip(*by_rank, strict=True)
        ]

    def _culprits(self, parts: list[tuple[int, dict[str, Any]]]) -> list[dict[str, Any]]:
        unsound = [(rank, part) for rank, part in parts if not part["is_sound"]]
        return [self._described(rank, part) for rank, part in unsound or parts]

    def _described(self, rank: int, part: dict[str, Any]) -> dict[str, Any]:
        indices = part["indices"]
        entry = {"rank": rank, "batch": part["batch"], "loss": _json(part["loss"]), "indices": indices}
        if self._name_of is not None and indices is not None:
            entry["files"] = [self._name_of(index) for index in indices]
        return entry


def first_files(batches: Sequence[dict[str, Any]]) -> str:
    """Return a phrase that names the first files of a bad step's `batches`; empty without files."""
    files = [file for batch in batches for file in batch.get("files", ())]
    if not files:
        return ""
    rest = len(files) - _SHOWN
    more = f" and {rest} more in the log" if rest > 0 else ""
    return f"; its images: {', '.join(files[:_SHOWN])}{more}"


def _plain(part: Evidence) -> dict[str, Any]:
    indices = None if part.indices is None else part.indices.tolist()
    return {"batch": part.batch, "loss": part.loss, "is_sound": part.is_sound, "indices": indices}


def _json(loss: float) -> float | str:
    return loss if math.isfinite(loss) else str(loss)
