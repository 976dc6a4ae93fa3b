"""How far each stage of a model is from what the machine allows.

Bytes and operations are counted from the model's structure, not measured. A byte counts where no implementation
with one kernel for each convolution gets round it: the tensors between convolutions are written once and read once,
and read again where a sum over the whole batch or image has to be known first. Everything pointwise is taken to
be fused into its neighbours. `PASSES` says what that comes to.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from effnet.benchmark.ceilings import Ceilings, measure_ceilings
from effnet.benchmark.environment import environment
from effnet.benchmark.train import own_step, synthetic_trainer
from effnet.models import model_config
from effnet.models.config import ModelConfig
from effnet.models.efficientnet import EfficientNet
from effnet.models.kernels.choose import milliseconds
from effnet.models.profile import LayerSize, layer_sizes
from effnet.recipe import Recipe
from effnet.training.distributed import choose_device
from effnet.training.precision import AUTOCAST_DTYPES, Precision, resolve_precision
from effnet.training.step import Normalise

STAGES = ("stem", *(f"layers.{index}" for index in range(7)), "features", "classifier")
UPDATE = "update"
WEIGHT_BYTES = 4
# A weight, its gradient, the optimizer's two averages and EMA's are read; all but the gradient are written.
UPDATE_PASSES = 9
# Forward once; backward once for the input's gradient and once for the weights'.
TRAINING_OPERATIONS = 3


@dataclass(frozen=True)
class Passes:
    """How often each tensor of a block is read or written.

    Attributes:
        input: the block's input, which is the projection before it, not yet normalised, or the last sum.
        expanded: what the expansion's convolution gives.
        filtered: what the depthwise convolution gives.
        squeezed: of the same, in addition, where there is squeeze-and-excitation.
        projected: what the projection gives.
        shortcut: of the same, in addition, where there is a shortcut.
    """

    input: int
    expanded: int
    filtered: int
    squeezed: int
    projected: int
    shortcut: int


PASSES: dict[str, Passes] = {
    # BatchNorm is part of the weights; squeeze-and-excitation's means come with the convolution that is squeezed.
    "inference": Passes(input=1, expanded=2, filtered=2, squeezed=0, projected=1, shortcut=1),
    # Statistics come with each convolution; squeezing has to wait for the depthwise convolution's, and a shortcut for
    # the projection's: it reads the projection and the input, and writes the sum.
    "forward": Passes(input=1, expanded=2, filtered=2, squeezed=1, projected=1, shortcut=3),
    # The input is read for the expansion's weights, its gradient written. Projected: its BatchNorm's sums need gradient
    # and value, then so does its convolution. Filtered: read for the projection's weights, its gradient written, and
    # both read by the depthwise convolution; with squeezing, both once more for BatchNorm's sums after the gates'
    # gradients are known. Expanded: read by the depthwise convolution, its gradient written, both read by the
    # expansion.
    "backward": Passes(input=2, expanded=4, filtered=4, squeezed=2, projected=4, shortcut=1),
}


@dataclass(frozen=True)
class Work:
    """Bytes and operations."""

    moved: float
    operations: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.moved + other.moved, self.operations + other.operations)


def count_work(config: ModelConfig, batch_size: int, number_bytes: int, training: bool) -> dict[str, Work]:
    """Work of each stage, and in training of the weights' update.

    Args:
        config: the model; its image size counts.
        batch_size: images.
        number_bytes: bytes of a number in a tensor between layers.
        training: a training step (forward, backward, update), not inference.
    """
    layers = layer_sizes(config)
    phases = ("forward", "backward") if training else ("inference",)
    work = {}
    for stage in STAGES:
        inside = {name: size for name, size in layers.items() if name.startswith(f"{stage}.")}
        numbers = sum(_stage_numbers(stage, inside, phase) for phase in phases)
        images = sum(_image_bytes(stage, inside) for _ in phases)
        weights = sum(size.weights for size in inside.values())
        weight_bytes = weights * WEIGHT_BYTES * (TRAINING_OPERATIONS if training else 1)
        repeats = (TRAINING_OPERATIONS - (stage == "stem")) if training else 1  # images need no gradient
        operations = 2 * sum(size.macs for size in inside.values()) * repeats
        work[stage] = Work(
            batch_size * (numbers * number_bytes + images) + weight_bytes, batch_size * operations
        )
    if training:
        weights = sum(size.weights for size in layers.values())
        work[UPDATE] = Work(weights * WEIGHT_BYTES * UPDATE_PASSES, 0)
    return work


def _image_bytes(stage: str, layers: Mapping[str, LayerSize]) -> int:
    """Images come as bytes, and are normalised as they are read."""
    return layers["stem.conv"].inputs if stage == "stem" else 0


def _stage_numbers(stage: str, layers: Mapping[str, LayerSize], phase: str) -> int:
    """Numbers that a stage moves in one phase for one image, the image itself aside."""
    if stage == "stem":
        # Written; backward, value and gradient are read for BatchNorm and the weights.
        return layers["stem.conv"].outputs * {"inference": 1, "forward": 1, "backward": 2}[phase]
    if stage == "features":
        size = layers["features.conv"]
        # Inference keeps the means alone. Training writes and reads it for them; backward, twice for BatchNorm.
        outputs = {"inference": 0, "forward": 2, "backward": 2}[phase]
        return size.inputs * (2 if phase == "backward" else 1) + size.outputs * outputs
    if stage == "classifier":
        size = layers["classifier.fc"]
        return (size.inputs + size.outputs) * (2 if phase == "backward" else 1)
    blocks = dict.fromkeys(name.split(".")[2] for name in layers)
    return sum(_block_numbers(f"{stage}.{block}", layers, PASSES[phase]) for block in blocks)


def _block_numbers(block: str, layers: Mapping[str, LayerSize], passes: Passes) -> int:
    expand, depthwise = layers.get(f"{block}.expand.conv"), layers[f"{block}.depsep.conv"]
    projected = layers[f"{block}.proj.conv"].outputs
    inputs = (expand or depthwise).inputs
    numbers = inputs * passes.input + depthwise.outputs * passes.filtered + projected * passes.projected
    if expand is not None:
        numbers += expand.outputs * passes.expanded
    if f"{block}.se.squeeze" in layers:
        numbers += depthwise.outputs * passes.squeezed
    # Only a stage's first block changes the shape, and the tables hold no first block that does not.
    if inputs == projected:
        numbers += projected * passes.shortcut
    return numbers


@dataclass(frozen=True)
class RooflineBenchmark:
    """What to measure.

    Attributes:
        recipe: model, sizes, precision, device; `compile` compiles each stage.
        given: rates to count with in place of this machine's; then nothing is run.
    """

    recipe: Recipe
    given: Ceilings | None = None


def benchmark_roofline(settings: RooflineBenchmark) -> dict[str, Any]:
    """Count, measure and compare; gives what `write` stores.

    Raises:
        UserError, ModelError: a device, precision or model that is not there.
    """
    recipe = settings.recipe
    device = choose_device(recipe.compute.device) if settings.given is None else torch.device("cpu")
    config = model_config(recipe.model.arch, image_size=recipe.model.image_size)
    name = resolve_precision(recipe.compute.precision, device) if settings.given is None else _name(recipe)
    dtype = AUTOCAST_DTYPES.get(name, torch.float32)
    times: dict[bool, dict[str, float]] = {True: {}, False: {}}
    ceilings = settings.given
    if ceilings is None:
        Precision(recipe.compute, device)  # sets TF32 for the matrix product too
        ceilings = measure_ceilings(device, dtype)
        times = measure_stages(recipe.replace({"image_size": config.image_size}), device)
    counted = {
        training: count_work(config, recipe.optimizer.batch_size, dtype.itemsize, training)
        for training in (False, True)
    }
    return {
        "benchmark": "roofline",
        "arch": config.name,
        "image_size": config.image_size,
        "batch_size": recipe.optimizer.batch_size,
        "precision": name,
        "device": str(device) if settings.given is None else "given rates",
        "compiled": recipe.compute.compile,
        "ceilings": asdict(ceilings),
        "inference": _rows(counted[False], times[False], ceilings, recipe.optimizer.batch_size),
        "training": _rows(counted[True], times[True], ceilings, recipe.optimizer.batch_size),
        "environment": environment(),
    }


def _name(recipe: Recipe) -> str:
    precision = recipe.compute.precision
    return "fp16" if precision == "amp" else precision


def _rows(
    work: Mapping[str, Work], times: Mapping[str, float], ceilings: Ceilings, batch_size: int
) -> dict[str, Any]:
    """A row for each stage and one for the whole, whose floor is the sum of the stages'."""
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
    """Seconds of every stage by itself and of the whole, in inference (False) and in training (True)."""
    trainer, batch = synthetic_trainer(recipe, device)
    model, precision = trainer.model, trainer.precision
    assert isinstance(model, EfficientNet)
    images = Normalise(trainer.preprocessing).to(device)(batch.images)
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
    """Seconds of each stage on the output of the one before; in training mode forward and backward."""
    times, x = {}, images
    for stage in STAGES:
        module = model.get_submodule(stage)
        if compiles:
            torch.compiler.reset()  # stages are of one class, of which the compiler takes only so many
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
    """Show a result to people."""
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
