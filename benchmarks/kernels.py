"""Speed of the Triton depthwise kernels and of cuDNN's, for every shape in a model."""

import copy
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.ceilings import Ceilings, measure_ceilings
from effnet.benchmark.environment import environment
from effnet.kernels.block import ACTIVATIONS, can_fuse, top_left
from effnet.kernels.choose import (
    Workload,
    block_sides,
    candidates,
    measure_block,
    milliseconds,
    shape_name,
)
from effnet.kernels.operators import NONE, depthwise, depthwise_backward, has_triton
from effnet.models import build_model, model_config
from effnet.models.layers import MBConv
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.precision import AUTOCAST_DTYPES, Precision
from effnet.runtime.processes import choose_device


def benchmark_kernels(recipe: Recipe) -> dict[str, Any]:
    """Measure every shape of a model.

    Args:
        recipe: model, image size, batch size and precision; `compile` compiles the block's part in which the
            kernels are compared with cuDNN's.

    Returns:
        A row for each shape, the ceilings and the environment, as plain values for JSON.

    Raises:
        UserError: there is no GPU, or no Triton.
    """
    device = choose_device(recipe.compute.device)
    if device.type != "cuda" or not has_triton():
        raise UserError(
            "python -m benchmarks kernels needs a CUDA GPU and the package triton; the kernels are for GPUs"
        )
    precision = Precision(recipe.compute.precision, device)
    dtype = AUTOCAST_DTYPES.get(precision.name)
    config = model_config(recipe.model.arch, image_size=recipe.model.image_size)
    workload = Workload((recipe.optimizer.batch_size or 64), config.image_size, dtype, recipe.compute.compile)
    ceilings = measure_ceilings(device, dtype or torch.float32)
    return {
        "benchmark": "kernels",
        "arch": config.name,
        "image_size": config.image_size,
        "batch_size": workload.batch_size,
        "precision": precision.name,
        "compiled": workload.compiled,
        "ceilings": asdict(ceilings),
        "rows": kernel_rows(recipe.model.arch, workload, device, ceilings),
        "environment": environment(),
    }


def kernel_rows(
    arch: str, workload: Workload, device: torch.device, ceilings: Ceilings
) -> dict[str, dict[str, Any]]:
    """Return a row for each distinct shape of a model's blocks that the kernels support."""
    model = build_model(arch).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows: dict[str, dict[str, Any]] = {}
    for _, block, side in block_sides(model, workload.image_size):
        name = shape_name(block, side, workload.batch_size)
        if can_fuse(block) and name not in rows:
            rows[name] = measure_shape(block, side, workload, device, ceilings)
    return rows


def measure_shape(
    block: MBConv, side: int, workload: Workload, device: torch.device, ceilings: Ceilings
) -> dict[str, Any]:
    """Return milliseconds of cuDNN's convolution, of the kernels, and of the part of a block with either.

    The kernels do more than the convolution: BatchNorm and activation before it, and the statistics after it.
    """
    shapes = _Tensors(block, side, workload, device)
    library = {"forward": shapes.library_forward, "backward": shapes.library_backward()}
    times = {f"library_{kind}": milliseconds(step, device) for kind, step in library.items()}
    tiles: dict[int, dict[str, float]] = {}
    for tile in candidates(side):
        forward, backward = shapes.kernels(tile)
        tiles[tile] = {"forward": milliseconds(forward, device), "backward": milliseconds(backward, device)}
    best = min(tiles, key=lambda tile: sum(tiles[tile].values()))
    verdict = measure_block(block, side, workload)
    row: dict[str, Any] = {**times, "tile": best, "tiles": tiles, "part": asdict(verdict)}
    for kind, moved in shapes.bytes_moved().items():
        row[f"kernel_{kind}"] = tiles[best][kind]
        row[f"bytes_{kind}"] = moved
        row[f"share_of_copy_{kind}"] = moved / (tiles[best][kind] / 1000) / ceilings.copy
    return row


class _Tensors:
    """Operands of one shape, and steps over them."""

    def __init__(self, block: MBConv, side: int, workload: Workload, device: torch.device) -> None:
        self.conv = copy.deepcopy(block.depsep.conv)
        channels, stride = self.conv.in_channels, self.conv.stride[0]
        dtype = workload.dtype or self.conv.weight.dtype
        out = -(-side // stride)
        self.x, self.y, self.gradient = (
            torch.randn(workload.batch_size, channels, size, size, device=device, dtype=dtype).to(
                memory_format=torch.channels_last
            )
            for size in (side, out, out)
        )
        self.conv.to(dtype)
        self.weight = self.conv.weight.detach()
        self.vectors = [torch.rand(channels, device=device) for _ in range(4)]
        self.normalised = block.expand is not None
        self.how = (
            self.conv.kernel_size[0],
            stride,
            *top_left(self.conv, *self.x.shape[2:]),
            ACTIVATIONS[type(block.depsep.act)] if self.normalised else NONE,
        )

    def library_forward(self) -> Tensor:
        with torch.no_grad():
            output: Tensor = self.conv(self.x)
        return output

    def library_backward(self) -> Callable[[], object]:
        x = self.x.detach().requires_grad_()
        y = self.conv(x)
        wanted = (x, self.conv.weight)
        return lambda: torch.autograd.grad(y, wanted, self.gradient, retain_graph=True)

    def kernels(self, tile: int) -> tuple[Callable[[], object], Callable[[], object]]:
        scale, shift, constants, slopes = self.vectors
        norm = (scale, shift) if self.normalised else (None, None)

        def forward() -> object:
            with torch.no_grad():
                return depthwise(self.x, self.weight, *norm, *self.how, tile)

        def backward() -> object:
            return depthwise_backward(
                self.x, self.weight, *norm, self.y, self.gradient, constants, slopes, *self.how, tile
            )

        return forward, backward

    def bytes_moved(self) -> dict[str, int]:
        """Return the bytes that the kernels have to move.

        Forward, the input is read and the output written; backward, input, output and its gradient are read and the
        input's gradient is written.
        """
        return {
            "forward": self.x.nbytes + self.y.nbytes,
            "backward": 2 * self.x.nbytes + self.y.nbytes + self.gradient.nbytes,
        }


def print_table(result: dict[str, Any]) -> None:
    """Print a result as a table."""
    title = (
        f"{result['arch']}, {result['image_size']} px, batch {result['batch_size']}, {result['precision']}"
        f"{', compiled' if result['compiled'] else ''}; copy {result['ceilings']['copy'] / 1e9:.0f} GB/s"
    )
    table = Table(
        title=title,
        caption="milliseconds forward + backward; part: with BatchNorms and activations",
        box=None,
    )
    table.add_column("shape, kernel/stride", no_wrap=True)
    for heading in ("library", "kernels", "MB", "of copy rate", "part, library", "part, kernels", "chosen"):
        table.add_column(heading, justify="right")
    for name, row in result["rows"].items():
        part = row["part"]
        table.add_row(
            name,
            f"{row['library_forward']:.3f} + {row['library_backward']:.3f}",
            f"{row['kernel_forward']:.3f} + {row['kernel_backward']:.3f}",
            f"{row['bytes_forward'] / 1e6:.0f} + {row['bytes_backward'] / 1e6:.0f}",
            f"{row['share_of_copy_forward']:.0%}, {row['share_of_copy_backward']:.0%}",
            f"{part['library']:.3f}",
            "" if part["kernel"] is None else f"{part['kernel']:.3f}",
            "library" if part["tile"] is None else f"tile {part['tile']}",
        )
    Console().print(table)
