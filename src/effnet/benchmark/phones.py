"""Files for phones and small devices in their own runtimes, each call in a process of its own."""

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effnet.benchmark.measure import Timing
from effnet.export.edge.appended import read_facts
from effnet.export.edge.formats import BATCH_KEY, BYTES_KEY, EdgeFormat, run_edge
from effnet.export.edge.table import EDGE_FORMATS
from effnet.export.facts import PRECISION_KEY, read_metadata
from effnet.inference.engines.network import Network, as_array, checked_logits
from effnet.runtime.errors import UserError
from effnet.runtime.suggestions import suggested_path

# Of a turn: the images of all turns pass through a file.
_MOST_STEPS = 20


class EdgeNetwork(Network):
    """A file of `effnet export litert` or `executorch` in its own runtime, where no engine of this process reads it.

    Args:
        form: the format.
        path: the file.

    Raises:
        UserError: the runtime is not installed, or the file is missing or another program's.
    """

    batch_size: int

    def __init__(self, form: EdgeFormat, path: Path) -> None:
        converter = form.converter
        if not path.is_file():
            raise UserError(f"{path}: no such file{suggested_path(path)}")
        if not converter.is_installed:
            raise UserError(
                f"{path}: {converter.packages[0]}, which runs it, is not in the cache; `effnet export "
                f"{converter.format}` puts it there"
            )
        facts = read_facts(path)
        super().__init__(
            read_metadata(facts, path),
            takes_bytes=facts.get(BYTES_KEY) == "true",
            precision=facts.get(PRECISION_KEY, "fp32"),
        )
        self.form, self.path = form, path
        self.batch_size = _batch_size(facts.get(BATCH_KEY, "1"), path)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images.

        Raises:
            UserError: the runtime fails, or returns something else than logits of these images.
        """
        logits, _ = self._run(as_array(images))
        return checked_logits(logits[: len(images)], len(images), self.path)

    def timed(self, images: Tensor, *, rounds: int, steps: int, seconds: float) -> Timing:
        """Time the file by its runtime's own clock, in a process of its own.

        Args:
            images: one batch as the file takes it.
            rounds: parts of the time, of which the result is the median.
            steps: batches in a part at most.
            seconds: length of a part.
        """
        batch = as_array(images)
        _, trial = self._run(np.concatenate([batch] * 3))
        steps = max(1, min(steps, _MOST_STEPS, math.ceil(seconds / trial[-1])))
        # The first batch of a process is not timed.
        _, each = self._run(np.concatenate([batch] * (1 + rounds * steps)))
        parts = each[1:].reshape(rounds, steps)
        rates = [len(batch) * steps / float(part.sum()) for part in parts]
        return Timing(statistics.median(rates), rates, [float(one) for one in each[1:]])

    def _run(self, images: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        missing = -len(images) % self.batch_size
        return run_edge(self.form, self.path, np.concatenate([images, *[images[-1:]] * missing]))


def _batch_size(text: str, path: Path) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise UserError(f"{path}: its metadata are damaged: {BATCH_KEY} is {text!r:.40}; export it again")
    return int(text)


def edge_format(file: Path) -> EdgeFormat | None:
    """Return the format of a file by its suffix; None for one that is for no phone."""
    return next((form for form in EDGE_FORMATS.values() if form.suffix == file.suffix), None)


def open_edge(form: EdgeFormat, file: Path, device: torch.device) -> EdgeNetwork:
    """Open a file in its own runtime, which is on the CPU.

    Raises:
        UserError: as for `EdgeNetwork`, or another device.
    """
    if device.type != "cpu":
        raise UserError(f"{file}: {form.converter.format} runs on the CPU here; use --device cpu")
    return EdgeNetwork(form, file)
