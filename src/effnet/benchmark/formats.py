"""A model in every format that can be written here, with the size, speed and agreement of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effnet.benchmark.environment import environment
from effnet.benchmark.measure import Step, interleaved
from effnet.benchmark.results import write
from effnet.export.reference import CHECKED_BATCHES, example_images
from effnet.export.writer import Order, Writer, Written
from effnet.inference.auto.step import engine_step
from effnet.inference.engine import engine_of
from effnet.inference.engines import ENGINES
from effnet.inference.engines.network import Network
from effnet.runtime.disk import check_writable
from effnet.runtime.errors import UserError
from effnet.runtime.progress import working

PYTORCH = "PyTorch"
FILE = "formats.json"
_ROUNDS, _STEPS, _SECONDS = 5, 50, 0.2


@dataclass
class _Row:
    """A format of the table; see `export_formats`."""

    format: str
    file: str | None = None
    bytes: int | None = None
    seconds: float | None = None
    difference: float | None = None
    same_top1: int | None = None
    images: int | None = None
    error: str | None = None


def export_formats(writers: Mapping[str, Writer], order: Order, folder: Path) -> dict[str, Any]:
    """Write a model in every format that can be written here, run each file, and write `FILE` beside them.

    Args:
        writers: formats by name.
        order: the model.
        folder: to write into; files of the same names are replaced.

    Returns:
        Plain values for JSON. `rows`, the first of which is PyTorch: `format`, `file`, `bytes`, `seconds` of one image,
        `difference` of a logit to PyTorch's at most, `same_top1` of `images`, None for what is not known; `error` of a
        format that was not written. `skipped`: reasons by format. `model`, and the `environment`.

    Raises:
        UserError: no format can be written here, or the folder can't be.
    """
    check_writable(folder / FILE, make_folder=True)
    skipped = {name: why for name, writer in writers.items() if (why := writer.missing(order.install))}
    wanted = {name: writer for name, writer in writers.items() if name not in skipped}
    if not wanted:
        raise UserError(f"no format can be written here: {'; '.join(skipped.values())}")
    rows = [_Row(PYTORCH)]
    files: dict[str, Written] = {}
    for name, writer in wanted.items():
        path = folder / (f"{order.trained.metadata.model}{writer.suffix}" if writer.suffix else name)
        try:
            files[name] = writer.write(order, path)
        except UserError as error:
            rows.append(_Row(name, error=str(error)))
        else:
            rows.append(_Row(name, path.name, files[name].size, difference=files[name].difference))
    _run(rows, {name: wanted[name] for name in files}, files, order)
    result = {
        "model": order.trained.metadata.model,
        "rows": [vars(row) for row in rows],
        "skipped": skipped,
        "environment": environment(),
    }
    write(result, folder / FILE)
    return result


def _run(
    rows: Sequence[_Row], writers: Mapping[str, Writer], files: Mapping[str, Written], order: Order
) -> None:
    """Fill in the agreement and the speed of the files."""
    preprocessing = order.trained.preprocessing
    images = torch.cat([example_images(preprocessing, size, takes_bytes=False) for size in CHECKED_BATCHES])
    networks = {PYTORCH: engine_of(order.trained, "torch", order.device, "fp32").network}
    networks |= {
        name: _network(writer.engine, files[name].path, order.device)
        for name, writer in writers.items()
        if writer.engine is not None
    }
    seconds = _timed(networks, images[:1])
    answers = {name: _answers(network, images) for name, network in networks.items()}
    for name, writer in writers.items():
        if writer.run is not None:
            with working(f"running {files[name].path.name}"):
                answers[name], each = writer.run(files[name].path, images.numpy())
            seconds[name] = float(np.median(each))
    right = answers[PYTORCH].argmax(1)
    for row in rows:
        row.seconds = seconds.get(row.format)
        if row.format in answers:
            row.same_top1 = int((answers[row.format].argmax(1) == right).sum())
            row.images = len(images)


def _network(engine: str, path: Path, device: torch.device) -> Network:
    """Open a file on an engine, which runs on the CPU where it has no use for `device`."""
    kind = ENGINES[engine]
    assert kind.network is not None
    return kind.network(path, device if kind.device in (None, device.type) else torch.device("cpu"))


@torch.inference_mode()
def _answers(network: Network, images: Tensor) -> npt.NDArray[np.float32]:
    """Return the logits of normalised images, one image at a time."""
    logits: npt.NDArray[np.float32] = (
        torch.cat([network(image[None].to(network.device)) for image in images]).cpu().numpy()
    )
    return logits


def _timed(networks: Mapping[str, Network], image: Tensor) -> dict[str, float]:
    """Return the seconds of one image on each network; those of a device take turns."""
    seconds: dict[str, float] = {}
    for device in {network.device for network in networks.values()}:
        steps: dict[str, Step] = {
            name: engine_step(network, image)
            for name, network in networks.items()
            if network.device == device
        }
        timings = interleaved(
            steps, images=1, device=device, rounds=_ROUNDS, steps=_STEPS, warmup=3, settle=1, seconds=_SECONDS
        )
        seconds |= {name: 1 / timing.images_per_second for name, timing in timings.items()}
    return seconds


def lines(result: dict[str, Any]) -> list[str]:
    """Return what to tell of a result: the formats left out, the table, and what went wrong."""
    told = [f"left out: {name}: {why}" for name, why in result["skipped"].items()]
    cells = [("format", "file", "MiB", "ms", "differs", "top-1"), *map(_cells, result["rows"])]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for texts in cells:
        left = [text.ljust(width) for text, width in zip(texts[:2], widths[:2], strict=True)]
        right = [text.rjust(width) for text, width in zip(texts[2:], widths[2:], strict=True)]
        told.append("  ".join([*left, *right]).rstrip())
    told.append("ms: one image; differs: a logit from PyTorch's, at most; top-1: PyTorch's answer")
    return told + [f"{row['format']}: {row['error']}" for row in result["rows"] if row["error"]]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["format"],
        row["file"] or ("not written" if row["error"] else "-"),
        "-" if row["bytes"] is None else f"{row['bytes'] / 2**20:.1f}",
        "-" if row["seconds"] is None else f"{1000 * row['seconds']:.2f}",
        "-" if row["difference"] is None else f"{row['difference']:.1e}",
        "-" if row["same_top1"] is None else f"{row['same_top1']}/{row['images']}",
    )
