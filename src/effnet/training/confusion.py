"""The confusion matrix of a validation set."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effnet.data import Batch
from effnet.runtime.files import write_text
from effnet.runtime.plots import drawn, new_figure, save_figure
from effnet.runtime.processes import Processes
from effnet.runtime.text import printable

_LABEL = 40
"""characters of a class's name in the picture at most"""

NOT_FINITE = "(not finite)"
"""column of images whose logits are not all finite, for which no class is predicted"""


class ConfusionMatrix:
    """Counts of images by true class (row) and predicted class (column).

    Args:
        classes: names in the order of the logits.
        device: device of the batches.
    """

    def __init__(self, classes: Sequence[str], device: torch.device) -> None:
        self.classes = list(classes)
        # One more column than classes, for `NOT_FINITE`.
        size = len(self.classes) * (len(self.classes) + 1)
        self._counts = torch.zeros(size, dtype=torch.int64, device=device)

    def __call__(self, batch: Batch, logits: Tensor) -> None:
        """Count a batch; does not wait for the device."""
        columns = logits.argmax(1).where(logits.isfinite().all(1), len(self.classes))
        cells = batch.targets * (len(self.classes) + 1) + columns
        self._counts += torch.bincount(cells, minlength=len(self._counts))

    def sum_over(self, processes: Processes) -> None:
        """Sum the counts over all processes."""
        processes.sum(self._counts)

    @property
    def counts(self) -> Tensor:
        """int64 (classes, classes) on the CPU; images whose logits are not finite are not among them."""
        return self._table()[:, :-1]

    def _table(self) -> Tensor:
        return self._counts.view(len(self.classes), -1).cpu()

    def cells(self) -> list[tuple[str, str, int]]:
        """Return true class, predicted class and images of each cell that has images, row by row."""
        table, columns = self._table(), [*self.classes, NOT_FINITE]
        return [
            (self.classes[row], columns[column], int(table[row, column]))
            for row, column in table.nonzero().tolist()
        ]

    def as_csv(self) -> str:
        """Return what `write` writes to a CSV file."""
        table, columns = self._table(), [*self.classes, NOT_FINITE]
        if not table[:, -1].any():
            table, columns = table[:, :-1], columns[:-1]
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["true \\ predicted", *columns])
        writer.writerows([name, *row] for name, row in zip(self.classes, table.tolist(), strict=True))
        return text.getvalue()

    def drawn(self) -> npt.NDArray[np.uint8]:
        """Return the picture, uint8 (H, W, 3).

        Raises:
            UserError: matplotlib is missing.
        """
        return drawn(self._figure("the confusion matrix as a picture"))

    def mistakes(self) -> dict[str, tuple[int, int, str, str]]:
        """Return by class that has images: images, right ones, accuracy in percent, and the usual mistake."""
        columns = [*self.classes, NOT_FINITE]
        found = {}
        for index, row in enumerate(self._table()):
            total, right = int(row.sum()), int(row[index])
            if not total:
                continue
            wrong = row.clone()
            wrong[index] = 0
            mistaken = columns[int(wrong.argmax())] if int(wrong.max()) else ""
            found[self.classes[index]] = (total, right, f"{100 * right / total:.2f}", mistaken)
        return found

    def write(self, path: Path) -> None:
        """Write the matrix: as CSV, or as a picture in any format that matplotlib knows by its suffix.

        A CSV file has the column `NOT_FINITE` only if there are such images; a picture never has it.

        Raises:
            UserError: matplotlib is missing, or does not know the suffix.
        """
        if path.suffix == ".csv":
            write_text(path, self.as_csv())
        else:
            save_figure(self._figure("--confusion as a picture"), path, "--confusion")

    def _figure(self, purpose: str) -> Any:
        counts = self.counts
        present = (counts.sum(0) + counts.sum(1)).nonzero().flatten()
        shown = counts[present][:, present].double()
        shares = shown / shown.sum(1, keepdim=True).clamp(min=1)
        names = [_label(self.classes[int(index)]) for index in present]
        side = min(30.0, max(5.0, 0.3 * len(names)))
        figure = new_figure(purpose, figsize=(side + 1, side), layout="constrained")
        axes = figure.add_subplot(xlabel="predicted", ylabel="true")
        picture = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        if len(names) <= 100:
            axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
            axes.set_yticks(range(len(names)), names, parse_math=False)
        figure.colorbar(picture, label="share of the true class")
        return figure


def _label(name: str) -> str:
    """Return a class's name as it is drawn beside the picture."""
    shown = printable(name)
    return shown if len(shown) <= _LABEL else f"{shown[: _LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"
