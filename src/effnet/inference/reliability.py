"""The reliability diagram of a validation set: how often answers of a confidence are right."""

import csv
from pathlib import Path
from typing import Any

from torch import Tensor

from effnet.data import Batch
from effnet.runtime.files import atomic_file
from effnet.runtime.plots import new_figure, save_figure
from effnet.runtime.processes import Processes
from effnet.training.bins import BINS, ConfidenceBins

_COLUMNS = ("temperature", "from", "to", "images", "confidence", "accuracy")


class Reliability:
    """Confidence and accuracy in bins, of raw logits and of those with a temperature; an observer of `Validator`.

    Args:
        processes: the processes that share the images.
        temperature: divisor of the logits; 1 for raw ones alone.
    """

    def __init__(self, processes: Processes, temperature: float = 1.0) -> None:
        self._processes = processes
        self.bins = {value: ConfidenceBins(processes.device) for value in (1.0, temperature)}

    def __call__(self, batch: Batch, logits: Tensor) -> None:
        """Count a batch; does not wait for the device."""
        for temperature, bins in self.bins.items():
            bins.add((logits / temperature).softmax(1), batch.targets)

    def sum_over(self) -> None:
        """Sum the counts over all processes."""
        for bins in self.bins.values():
            bins.sum_over(self._processes)

    def rows(self, temperature: float) -> list[tuple[float, float, int, float, float]]:
        """Return bounds, images, mean confidence and accuracy (in [0, 1]) of each bin that has images."""
        rows = []
        for number, (images, confidences, right) in enumerate(self.bins[temperature].rows):
            if images:
                bounds = number / BINS, min(1.0, (number + 1) / BINS)
                rows.append((*bounds, int(images), confidences / images, right / images))
        return rows

    def write(self, path: Path) -> None:
        """Write the bins as CSV, or a picture in any format that matplotlib knows by its suffix.

        Raises:
            UserError: matplotlib is missing, or does not know the suffix.
        """
        if path.suffix == ".csv":
            self._write_csv(path)
        else:
            self._draw(path)

    def _write_csv(self, path: Path) -> None:
        with atomic_file(path, "w") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for temperature in self.bins:
                for low, high, images, confidence, accuracy in self.rows(temperature):
                    figures = (f"{value:.4f}" for value in (low, high))
                    writer.writerow(
                        [f"{temperature:g}", *figures, images, f"{confidence:.4f}", f"{accuracy:.4f}"]
                    )

    def _draw(self, path: Path) -> None:
        figure = new_figure("--reliability as a picture", figsize=(5, 6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1, label="confidence = accuracy")
        for temperature, marker in zip(self.bins, "os", strict=False):
            self._draw_bins(above, below, temperature, marker)
        above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        below.set(xlabel="confidence", ylabel="images")
        above.legend(loc="upper left")
        save_figure(figure, path, "--reliability")

    def _draw_bins(self, above: Any, below: Any, temperature: float, marker: str) -> None:
        rows = self.rows(temperature)
        error = self.bins[temperature].expected_calibration_error
        name = "raw logits" if temperature == 1 else f"temperature {temperature:.3g}"
        confidences, accuracies = [row[3] for row in rows], [row[4] for row in rows]
        above.plot(confidences, accuracies, marker=marker, label=f"{name}: expected error {error:.3f}")
        edges = [row[0] for row in rows]
        below.step([*edges, 1.0], [*(row[2] for row in rows), 0], where="post")
