"""Comparison of files on every engine that reads them: speed, accuracy and size."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from effnet.benchmark.environment import environment
from effnet.benchmark.inference import EngineTurns
from effnet.benchmark.measure import Step, Timing
from effnet.benchmark.phones import EdgeNetwork, edge_format, open_edge
from effnet.benchmark.tables import comparison_table
from effnet.export.reference import example_images
from effnet.export.trained import ModelChoice
from effnet.inference.auto.step import engine_step
from effnet.inference.engine import Engine, open_engine
from effnet.inference.engines import is_exported, readers
from effnet.inference.evaluate import open_for
from effnet.models import model_config
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.processes import Processes, choose_device
from effnet.runtime.progress import working


@dataclass(frozen=True, kw_only=True)
class Comparison(EngineTurns):
    """Files to compare, on the engines that read each; weights run on eager PyTorch alone.

    Attributes:
        files: exported files, and weights.
        data: folder with ``val/<class>/`` to measure top-1 accuracy on, or None.
        class_map: as in `DataSettings`.
    """

    files: Sequence[Path]
    data: Path | None = None
    class_map: str | None = None


def benchmark_files(settings: Comparison) -> dict[str, Any]:
    """Measure every file on every engine, interleaved.

    Returns:
        Plain values for JSON: a row for each file, engine and batch size, and the environment. A row's `ratio_fp32`
        is its speed against the FP32 file of the same model on the same engine, `ratio_torch` against the weights in
        PyTorch.

    Raises:
        UserError: a file or data can't be used.
    """
    device = choose_device(settings.device)
    opened = {
        (file, engine.name): engine for file in settings.files for engine in _engines(file, settings, device)
    }
    accuracy = {key: _accuracy(engine, settings, device) for key, engine in opened.items()}
    rows = []
    for batch_size in settings.batch_sizes:
        by_key = _timings(opened, settings, batch_size, device)
        for key, timing in by_key.items():
            facts = {
                "file": str(key[0]),
                "engine": key[1],
                "precision": opened[key].network.precision,
                "batch_size": batch_size,
                "size": _size(key[0]),
            }
            rows.append({**facts, **timing.to_dict(), **_ratios(key, by_key, opened), **accuracy[key]})
    return {"benchmark": "files", "rows": rows, "environment": environment()}


def report(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    return comparison_table(result["rows"])


Key = tuple[Path, str]


def _engines(file: Path, settings: Comparison, device: torch.device) -> list[Engine]:
    """Open a file on the engines that read it and run here, or in its own runtime."""
    form = edge_format(file)
    if form is not None and not readers(file, device):
        name = form.converter.format
        is_wanted = settings.engines is None or name in settings.engines
        return [Engine(name, open_edge(form, file, device))] if is_wanted else []
    choice = ModelChoice(weights=file, device=device.type)
    if not is_exported(file):
        names = [name for name in settings.engines or ("torch",) if name in ("torch", "torch-compiled")]
    else:
        reading = [kind.name for kind in readers(file, device)]
        names = [name for name in reading if name in (settings.engines or reading)]
        if not reading:
            raise UserError(f"{file}: no engine that reads it is installed or runs on {device.type}")
    return [open_engine(choice, name) for name in names]


def _timings(
    opened: dict[Key, Engine], settings: Comparison, batch_size: int, device: torch.device
) -> dict[Key, Timing]:
    """Time a batch on each engine, in turns, and then in each runtime that is a process of its own.

    Files that take batches of another size are left out.
    """
    steps: dict[Key, Step] = {}
    elsewhere: dict[Key, tuple[EdgeNetwork, torch.Tensor]] = {}
    for key, engine in opened.items():
        network = engine.network
        if network.batch_size not in (None, batch_size):
            continue
        if not isinstance(network, EdgeNetwork):
            steps[key] = _step(engine, batch_size)
        else:
            images = example_images(network.preprocessing, batch_size, takes_bytes=network.takes_bytes)
            elsewhere[key] = (network, images)
    timings = settings.time(steps, batch_size, device) if steps else {}
    for key, (network, images) in elsewhere.items():
        with working(f"running {key[0].name}"):
            timings[key] = network.timed(
                images, rounds=settings.rounds, steps=settings.steps, seconds=settings.seconds
            )
    return {key: timings[key] for key in opened if key in timings}


def _step(engine: Engine, batch_size: int) -> Step:
    return engine_step(engine.network, example_images(engine.preprocessing, batch_size, takes_bytes=False))


def _accuracy(engine: Engine, settings: Comparison, device: torch.device) -> dict[str, Any]:
    if settings.data is None:
        return {}
    given = {"class_map": settings.class_map, "batch_size": max(settings.batch_sizes), "workers": 0}
    opening = open_for(engine, Recipe().replace(given), settings.data, Processes.alone(device))
    ((network, validator),) = opening.models.values()
    metrics = validator(network)
    images = round(metrics["images"])
    return {"top1": metrics["top1"], "images": images, "right": round(metrics["top1"] / 100 * images)}


def _ratios(key: Key, timings: dict[Key, Timing], opened: dict[Key, Engine]) -> dict[str, float]:
    """Return the ratios to the first FP32 file of the same model on the same engine, and in PyTorch."""
    ratios = {}
    model = opened[key].metadata.model
    same_network = {model, model_config(model).twin}
    for name, engine in (("ratio_fp32", key[1]), ("ratio_torch", "torch")):
        for other, timing in timings.items():
            network = opened[other].network
            same = network.metadata.model in same_network
            if other[1] == engine and network.precision == "fp32" and same and name not in ratios:
                ratios[name] = timings[key].ratio_to(timing)
    return ratios


def _size(file: Path) -> int:
    """Return the bytes of a file, with OpenVINO's weights beside it."""
    beside = file.with_suffix(".bin")
    return file.stat().st_size + (beside.stat().st_size if file.suffix == ".xml" else 0)
