"""Inference throughput and latency: this project's engines beside other implementations, in one process."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effnet.benchmark.baselines import LIBRARIES, baseline_model
from effnet.benchmark.environment import environment
from effnet.benchmark.measure import Name, Step, Timing, interleaved
from effnet.benchmark.tables import inference_tables, latencies, markdown
from effnet.data.preprocessing import Preprocessing
from effnet.export.reference import example_images
from effnet.export.trained import TrainedModel
from effnet.inference.auto.choose import Work
from effnet.inference.auto.step import engine_step
from effnet.inference.engine import AUTO, engine_of
from effnet.inference.engines import ENGINES, for_weights
from effnet.models import model_config
from effnet.quantization.model import build
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.precision import AUTOCAST_DTYPES, Precision, resolve_precision
from effnet.runtime.processes import choose_device
from effnet.weights import WeightsMetadata

BASELINES = ("torchvision", "torchvision compiled")
_COMPILED = " compiled"


@dataclass(frozen=True, kw_only=True)
class EngineTurns:
    """Engines that take turns, and the length of the turns.

    Attributes:
        engines: keys of `ENGINES`, or ``auto``; None for all that run here.
        batch_sizes: images in a batch.
        device: `auto`, `cuda` or `cpu`.
        rounds, steps, seconds: see `effnet.benchmark.measure.interleaved`.
    """

    engines: Sequence[str] | None = None
    batch_sizes: Sequence[int] = (1, 8)
    device: str = "auto"
    rounds: int = 7
    steps: int = 100
    seconds: float = 0.5

    def time(
        self, implementations: Mapping[Name, Step], batch_size: int, device: torch.device
    ) -> dict[Name, Timing]:
        """Time each implementation's step with a batch of `batch_size` images on `device`."""
        return interleaved(
            implementations,
            images=batch_size,
            device=device,
            rounds=self.rounds,
            steps=self.steps,
            warmup=3,
            settle=1,
            seconds=self.seconds,
        )


@dataclass(frozen=True, kw_only=True)
class InferenceBenchmark(EngineTurns):
    """Settings of the benchmark.

    Attributes:
        archs: models.
        precisions: as in `ComputeSettings`; engines that lack one are left out.
        image_size: side in pixels; None for each model's own.
        baselines: run torchvision and timm beside the engines.
        compiled: run each with torch.compile too, which takes minutes to compile.
    """

    archs: Sequence[str] = ("efficientnet-b0",)
    precisions: Sequence[str] = ("fp32",)
    image_size: int | None = None
    baselines: bool = True
    compiled: bool = True


def benchmark_inference(settings: InferenceBenchmark) -> dict[str, Any]:
    """Measure each model, precision and batch size.

    Returns:
        Plain values for JSON: `runs`, each with its `rows` by implementation and the reasons of those that were
        `skipped`, and the `environment`.

    Raises:
        UserError: a model, engine, device or precision is not available.
    """
    device = choose_device(settings.device)
    if unknown := set(settings.engines or ()) - {AUTO, *ENGINES}:
        raise UserError(f"--engine must be among {', '.join((AUTO, *ENGINES))}, not {min(unknown)!r}")
    runs = [
        _run(settings, arch, resolve_precision(precision, device), batch_size, device)
        for arch in settings.archs
        for precision in settings.precisions
        for batch_size in settings.batch_sizes
    ]
    return {"benchmark": "inference", "runs": runs, "environment": environment()}


def _run(
    settings: InferenceBenchmark, arch: str, precision: str, batch_size: int, device: torch.device
) -> dict[str, Any]:
    torch.compiler.reset()  # otherwise later batch sizes get code for any size, which is slower
    trained = random_model(arch, settings.image_size)
    size = trained.preprocessing.image_size
    images = example_images(trained.preprocessing, batch_size, takes_bytes=False)
    steps: dict[str, Step] = {}
    skipped: dict[str, str] = {}
    for name, make in _implementations(settings, trained, precision, device):
        try:
            steps[name] = make(images)
        except (ImportError, UserError) as error:
            skipped[name] = str(error)
    if not steps:
        raise UserError(f"nothing to measure: {'; '.join(skipped.values())}")
    try:
        timings = settings.time(steps, batch_size, device)
    except torch.OutOfMemoryError:
        timings, skipped = {}, {"batch": "does not fit the GPU's memory"}
    return {
        "arch": arch,
        "image_size": size,
        "batch_size": batch_size,
        "precision": precision,
        "rows": {name: _row(name, timing, timings) for name, timing in timings.items()},
        "skipped": skipped,
    }


def random_model(arch: str, image_size: int | None = None) -> TrainedModel:
    """Return a model with random weights.

    Args:
        arch: its name.
        image_size: side in pixels; None for its own.
    """
    torch.manual_seed(0)
    size = model_config(arch, image_size=image_size).image_size
    preprocessing = Preprocessing(size, size + 32)
    model = build(model_config(arch, image_size=size)).eval()
    return TrainedModel(model, WeightsMetadata(arch, preprocessing.to_dict()))


def _row(name: str, timing: Timing, timings: dict[str, Timing]) -> dict[str, Any]:
    """Return plain values of an implementation, with its ratio to each baseline."""
    ratios = {f"ratio_to_{base}": timing.ratio_to(timings[base]) for base in BASELINES if base in timings}
    return {**timing.to_dict(), **ratios, "engine": name.partition("effnet ")[2]}


def _implementations(
    settings: InferenceBenchmark, trained: TrainedModel, precision: str, device: torch.device
) -> Iterator[tuple[str, Callable[[Tensor], Step]]]:
    """Yield names with functions that make a step for given images."""
    for name in settings.engines or [kind.name for kind in for_weights(device)]:
        if settings.compiled or name != "torch-compiled":
            yield (
                f"effnet {name}",
                lambda images, name=name: engine_step(  # type: ignore[misc]
                    engine_of(trained, name, device, precision, Work(len(images))).network, images
                ),
            )
    if settings.baselines:
        for library in LIBRARIES:
            for compiles in (False, True)[: 1 + settings.compiled]:
                yield (
                    library + _COMPILED * compiles,
                    lambda images, library=library, compiles=compiles: baseline_step(  # type: ignore[misc]
                        library, trained.metadata.model, images, precision, device, compiles=compiles
                    ),
                )


def baseline_step(
    library: str, arch: str, images: Tensor, precision: str, device: torch.device, *, compiles: bool
) -> Step:
    """Return the inference of another library's model, as its documentation recommends: channels-last, autocast.

    Raises:
        ImportError: the library is not installed, or lacks the model.
    """
    Precision(precision, device)  # sets TF32 on or off
    model = baseline_model(library, Recipe().replace({"arch": arch, "num_classes": 1000})).eval()
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    forward: Callable[[Tensor], Tensor] = torch.compile(model, mode=mode) if compiles else model
    dtype = AUTOCAST_DTYPES.get(precision)

    @torch.inference_mode()
    def step() -> Tensor:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            return forward(images)

    return step


def report(result: dict[str, Any]) -> str:
    """Return the result as Markdown: the tables of NVIDIA's README, then every implementation of every run."""
    parts = [inference_tables(result["runs"])]
    header = ("", "images/s", "latency", "95 %", "99 %", "x torchvision", "x compiled", "W", "peak memory")
    for run in result["runs"]:
        title = f"{run['arch']}, {run['image_size']} px, batch {run['batch_size']}, {run['precision']}"
        parts.append(f"{title}\n\n{markdown(header, [_cells(n, r) for n, r in run['rows'].items()])}")
        parts += [f"left out: {name}: {reason}" for name, reason in run["skipped"].items()]
    return "\n\n".join(part for part in parts if part)


def _cells(name: str, row: dict[str, Any]) -> list[str]:
    ratios = [row.get(f"ratio_to_{base}") for base in BASELINES]
    return [
        name,
        f"{row['images_per_second']:.1f}",
        *latencies(row),
        *(f"{ratio:.2f}" if ratio else "-" for ratio in ratios),
        f"{row['watts']:.0f}" if row["watts"] else "-",
        f"{row['peak_memory'] / 2**20:.0f} MiB" if row["peak_memory"] else "-",
    ]
