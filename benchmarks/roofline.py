"""Roofline of each stage of a model: its bytes and operations, the least time they take, and its measured time."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.ceilings import Ceilings, measure_ceilings
from benchmarks.work import Work, count_work, stage_names
from effnet.benchmark.environment import environment
from effnet.benchmark.train import own_step, synthetic_trainer
from effnet.kernels.choose import milliseconds
from effnet.models import model_config
from effnet.models.efficientnet import EfficientNet
from effnet.recipe import Recipe
from effnet.runtime.precision import AUTOCAST_DTYPES, Precision, resolve_precision
from effnet.runtime.processes import choose_device
from effnet.training.step import Normalise


@dataclass(frozen=True)
class RooflineBenchmark:
    """Settings of the benchmark.

    Attributes:
        recipe: model, sizes, precision, device; `compile` compiles each stage.
        given: rates of another machine; with them, nothing is run.
    """

    recipe: Recipe
    given: Ceilings | None = None


def benchmark_roofline(settings: RooflineBenchmark) -> dict[str, Any]:
    """Count bytes and operations, measure, and compare.

    Returns:
        Settings, ceilings, a row for each stage of inference and of training, and the environment, as plain values.

    Raises:
        UserError: a device, precision or model is not available.
    """
    recipe = settings.recipe
    device = choose_device(recipe.compute.device) if settings.given is None else torch.device("cpu")
    config = model_config(recipe.model.arch, image_size=recipe.model.image_size)
    name = resolve_precision(recipe.compute.precision, device) if settings.given is None else _name(recipe)
    dtype = AUTOCAST_DTYPES.get(name, torch.float32)
    times: dict[bool, dict[str, float]] = {True: {}, False: {}}
    ceilings = settings.given
    if ceilings is None:
        Precision(recipe.compute.precision, device)  # also switches TF32 for the matrix product
        ceilings = measure_ceilings(device, dtype)
        times = measure_stages(recipe.replace({"image_size": config.image_size}), device)
    counted = {
        training: count_work(config, (recipe.optimizer.batch_size or 64), dtype.itemsize, training)
        for training in (False, True)
    }
    return {
        "benchmark": "roofline",
        "arch": config.name,
        "image_size": config.image_size,
        "batch_size": (recipe.optimizer.batch_size or 64),
        "precision": name,
        "device": str(device) if settings.given is None else "given rates",
        "compiled": recipe.compute.compile,
        "ceilings": asdict(ceilings),
        "inference": _rows(counted[False], times[False], ceilings, (recipe.optimizer.batch_size or 64)),
        "training": _rows(counted[True], times[True], ceilings, (recipe.optimizer.batch_size or 64)),
        "environment": environment(),
    }


def _name(recipe: Recipe) -> str:
    precision = recipe.compute.precision
    return "fp16" if precision == "amp" else precision or "fp32"


def _rows(
    work: Mapping[str, Work], times: Mapping[str, float], ceilings: Ceilings, batch_size: int
) -> dict[str, Any]:
    """Return a row for each stage and one for the whole, whose floor is the sum of the stages' floors."""
    floors = {stage: ceilings.floor(done.moved, done.operations) for stage, done in work.items()}
    total = sum(work.values(), Work(0, 0))
    whole = {**work, "whole": total}
    floors["whole"] = sum(floors.values())
    return {
        stage: {
            "bytes_per_image": done.moved / batch_size,
            "operations_per_image": done.operations / batch_size,
            "bound": "bytes"
            if done.moved / ceilings.copy >= done.operations / ceilings.matrix
            else "operations",
            "floor": floors[stage],
            "floor_images_per_second": batch_size / floors[stage],
            "measured": times.get(stage),
            "gap": times[stage] / floors[stage] if stage in times else None,
        }
        for stage, done in whole.items()
    }


def measure_stages(recipe: Recipe, device: torch.device) -> dict[bool, dict[str, float]]:
    """Return the seconds of each stage alone and of the whole, in inference (False) and in training (True)."""
    trainer, batch = synthetic_trainer(recipe, device)
    model, precision = trainer.opened.model, trainer.precision
    assert isinstance(model, EfficientNet)
    images = Normalise(trainer.opened.preprocessing).to(device)(batch.images)
    training = {"whole": milliseconds(own_step(trainer, batch), device) / 1000}
    training |= _stage_times(model.train(), images, precision, recipe.compute.compile, device)
    model.eval()
    inference = _stage_times(model, images, precision, recipe.compute.compile, device)
    run = torch.compile(model) if recipe.compute.compile else model

    def infer() -> None:
        with torch.no_grad(), precision.autocast():
            run(images)

    inference["whole"] = milliseconds(infer, device) / 1000
    return {True: training, False: inference}


def _stage_times(
    model: EfficientNet, images: Tensor, precision: Precision, compiles: bool, device: torch.device
) -> dict[str, float]:
    """Return the seconds of each stage on the output of the one before; in training mode, of forward and backward."""
    times, x = {}, images
    for stage in stage_names(model.config):
        module = model.get_submodule(stage)
        if compiles:
            torch.compiler.reset()  # all stages share a class, and the compiler limits its versions of one class
        run: Callable[[Tensor], Tensor] = torch.compile(module) if compiles else module
        with torch.no_grad(), precision.autocast():
            following = run(x)
        step = _stage_step(run, module, x, following, precision, is_first=stage == "stem")
        times[stage] = milliseconds(step, device) / 1000
        x = following
    return times


def _stage_step(
    run: Callable[[Tensor], Tensor],
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    precision: Precision,
    *,
    is_first: bool,
) -> Callable[[], object]:
    if not module.training:

        def forward() -> None:
            with torch.no_grad(), precision.autocast():
                run(x)

        return forward
    arriving = torch.randn_like(y)
    leaf = x.detach().requires_grad_(not is_first)
    wanted: list[Tensor] = [*([] if is_first else [leaf]), *module.parameters()]

    def both() -> None:
        with precision.autocast():
            output = run(leaf)
        torch.autograd.grad(output, wanted, arriving)

    return both


def print_table(result: dict[str, Any]) -> None:
    """Print a result as tables."""
    console = Console()
    ceilings = result["ceilings"]
    console.print(
        f"{result['arch']}, {result['image_size']} px, batch {result['batch_size']}, {result['precision']}"
        f"{', compiled' if result['compiled'] else ''}, {result['device']}; "
        f"{'measured' if ceilings['measured'] else 'given'}: copy {ceilings['copy'] / 1e9:.1f} GB/s, "
        f"matrix product {ceilings['matrix'] / 1e12:.2f} TFLOP/s",
        highlight=False,
    )
    for kind in ("inference", "training"):
        console.print(_table(kind, result[kind], ceilings["measured"]))


def _table(kind: str, rows: Mapping[str, Mapping[str, Any]], measured: bool) -> Table:
    table = Table(title=kind, box=None)
    table.add_column("stage")
    headings: Iterable[str] = ("MB/image", "GFLOP/image", "bound by", "floor")
    for heading in (*headings, *(("measured", "x floor") if measured else ())):
        table.add_column(heading, justify="right")
    for stage, row in rows.items():
        cells = [
            f"{row['bytes_per_image'] / 1e6:.2f}",
            f"{row['operations_per_image'] / 1e9:.3f}",
            row["bound"],
            f"{1000 * row['floor']:.3f} ms",
        ]
        if measured and row["measured"] is not None:
            cells += [f"{1000 * row['measured']:.2f} ms", f"{row['gap']:.1f}"]
        table.add_row(stage, *cells)
    rate = rows["whole"]["floor_images_per_second"]
    table.caption = f"the floor is {rate:,.0f} images/s"
    return table
