"""Speed of the Triton depthwise kernels and of cuDNN's, for every shape in a model."""

import copy
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.ceilings import Ceilings, measure_ceilings
from effnet.benchmark.environment import environment
from effnet.kernels.available import has_triton
from effnet.kernels.block import ACTIVATIONS, can_fuse, top_left
from effnet.kernels.choose import (
    Workload,
    block_sides,
    candidates,
    measure_block,
    milliseconds,
    shape_name,
)
from effnet.kernels.operators import NONE, depthwise, depthwise_backward
from effnet.models import build_model, model_config
from effnet.models.layers import MBConv
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.precision import AUTOCAST_DTYPES, Precision
from effnet.runtime.processes import choose_device

# Images in the batch whose results are compared with float64.
_COMPARED = 2


def benchmark_kernels(recipe: Recipe, *, shapes: int | None = None, anywhere: bool = False) -> dict[str, Any]:
    """Measure every shape of a model.

    Args:
        recipe: model, image size, batch size and precision; `compile` compiles the block's part in which the
            kernels are compared with cuDNN's.
        shapes: the first so many alone; None for all.
        anywhere: on a CPU too, where the operators' plain versions run, or with TRITON_INTERPRET=1 the kernels.

    Returns:
        A row for each shape, the ceilings and the environment, as plain values for JSON.

    Raises:
        UserError: there is no GPU, or no Triton.
    """
    device = choose_device(recipe.compute.device)
    if not anywhere and (device.type != "cuda" or not has_triton()):
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
        "rows": kernel_rows(recipe.model.arch, workload, device, ceilings, shapes),
        "environment": environment(),
    }


def kernel_rows(
    arch: str, workload: Workload, device: torch.device, ceilings: Ceilings, most: int | None = None
) -> dict[str, dict[str, Any]]:
    """Return a row for each distinct shape of a model's blocks that the kernels support, `most` at most."""
    model = build_model(arch).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows: dict[str, dict[str, Any]] = {}
    for _, block, side in block_sides(model, workload.image_size):
        name = shape_name(block, side, workload.batch_size)
        if can_fuse(block) and name not in rows and len(rows) != most:
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
    small = _Tensors(block, side, replace(workload, batch_size=_COMPARED), device)
    errors = small.errors(best)
    row: dict[str, Any] = {**times, "tile": best, "tiles": tiles, "part": asdict(verdict), "errors": errors}
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
        self.act = block.depsep.act
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

    def errors(self, tile: int) -> dict[str, float]:
        """Return ||kernels' - float64's|| / ||float64's|| of the output and of the gradients of input and weight."""
        norm = tuple(self.vectors[:2]) if self.normalised else (None, None)
        results = []
        for dtype in (self.x.dtype, torch.float64):
            leaves = [t.detach().to(dtype).requires_grad_() for t in (self.x, self.weight)]
            if dtype == torch.float64:
                y = self._exact(*leaves, *norm)
            else:
                y = depthwise(*leaves, *norm, *self.how, tile)[0]
            results.append([y.detach(), *torch.autograd.grad(y, leaves, self.gradient.to(dtype))])
        norms = [
            (torch.linalg.vector_norm(found.double() - exact), torch.linalg.vector_norm(exact))
            for found, exact in zip(*results, strict=True)
        ]
        errors = [float(apart / whole) for apart, whole in norms]
        return dict(zip(("output", "gradient of input", "gradient of weight"), errors, strict=True))

    def _exact(self, x: Tensor, weight: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        if scale is not None and shift is not None:
            x = self.act(x * scale.double()[:, None, None] + shift.double()[:, None, None])
        side, stride, top, left, _ = self.how
        height, width = (-(-size // stride) for size in x.shape[2:])
        # More zeros than needed behind; what the convolution makes of the rest is cut off.
        padded = F.pad(x, (left, 2 * side, top, 2 * side))
        y = F.conv2d(padded, weight, stride=stride, groups=x.shape[1])
        return y[:, :, :height, :width]

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
    for heading in (
        "library",
        "kernels",
        "MB",
        "of copy rate",
        "part, library",
        "part, kernels",
        "chosen",
        "error",
    ):
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
            f"{max(row['errors'].values()):.1e}",
        )
    Console().print(table)
