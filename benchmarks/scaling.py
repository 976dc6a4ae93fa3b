"""Simulated scaling over GPUs and machines, from a small model of a training step.

The model starts from the measured speed of one GPU and adds three costs: the part of the gradients' all-reduce that
outlasts the backward pass, the wait for the slowest process, and the wait for a machine's input.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from effnet.data.imagenet import NUM_IMAGES
from effnet.models import model_config
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.plain import parse_json

MEGABYTE = 1 << 20  # as PyTorch counts buckets
FIRST_BUCKET = 1.0  # megabytes; as in PyTorch: a small first bucket starts the all-reduce early
BACKWARD_SHARE = 2 / 3
GRADIENT_BYTES = 4
# Weights, two optimizer states, and the EMA of the weights.
CHECKPOINT_COPIES = 4
TABLE_WIDTH = 120


@dataclass(frozen=True)
class Cluster:
    """Machines with equal GPUs. The defaults are DGX A100s.

    Attributes:
        gpus_per_node: GPUs in a machine.
        link_bandwidth: GB/s of a GPU in an all-reduce inside a machine; the default is NVLink's with NCCL.
        network_bandwidth: GB/s of a machine to the others; the default is eight 200 Gb/s adapters less overhead.
        latency: microseconds of each of the 2 log2(GPUs) rounds of an all-reduce.
        input_rate: images per second that a machine reads, decodes and augments.
        jitter: standard deviation of a process's time for a batch, relative to its mean.
        disk_bandwidth: GB/s at which a checkpoint is written.
    """

    gpus_per_node: int = 8
    link_bandwidth: float = 230.0
    network_bandwidth: float = 180.0
    latency: float = 15.0
    input_rate: float = 16_652.0
    jitter: float = 0.043
    disk_bandwidth: float = 1.0


@dataclass(frozen=True)
class Workload:
    """Training job to simulate.

    Attributes:
        arch: model.
        images_per_second: measured rate of one GPU.
        batch_size: images in a batch of one GPU.
        step_size: global batch size, reached by gradient accumulation; at least one batch of each GPU.
        bucket_size: megabytes of gradients in one all-reduce.
    """

    arch: str
    images_per_second: float
    batch_size: int
    step_size: int = 4096
    bucket_size: float = 4.0


@dataclass(frozen=True)
class Scaling:
    """A simulated step on some number of GPUs.

    Attributes:
        gpus: number of GPUs.
        images_per_second: rate of all GPUs together.
        speedup: ratio to the rate of one GPU.
        compute, sum, straggler, input: seconds of a step: the GPUs' own work, the part of the all-reduce that outlasts
            the backward pass, the wait for the slowest process, and the wait for images.
        bound: largest cost, `input`, `straggler` or `sum`; empty for one GPU.
    """

    gpus: int
    images_per_second: float
    speedup: float
    compute: float
    sum: float
    straggler: float
    input: float
    bound: str


@dataclass(frozen=True)
class Layer:
    """Gradient of a layer in bytes, and its work in the backward pass in any unit."""

    gradient: int
    work: int


@cache
def layers(arch: str) -> tuple[Layer, ...]:
    """Return the layers with parameters, from input to output.

    Memory bounds their speed, so that a layer's work is the number of elements of its output.

    Raises:
        UserError: unknown model.
    """
    config = model_config(arch)
    found: list[Layer] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        found.append(Layer(own * GRADIENT_BYTES, output.numel()))

    with torch.device("meta"), torch.no_grad():
        model = EfficientNet(config).eval()
        for module in model.modules():
            if next(module.parameters(recurse=False), None) is not None:
                module.register_forward_hook(note)
        model(torch.empty(1, 3, config.image_size, config.image_size))
    return tuple(found)


def buckets(of_layers: Sequence[Layer], bucket_size: float) -> list[tuple[int, float]]:
    """Return the buckets in backward order: bytes, and the share of the backward pass after which each is full."""
    whole = sum(layer.work for layer in of_layers)
    filled: list[tuple[int, float]] = []
    size = work = 0
    limit = FIRST_BUCKET
    for layer in reversed(of_layers):
        work += layer.work
        size += layer.gradient
        if size >= min(limit, bucket_size) * MEGABYTE:
            filled.append((size, work / whole))
            size, limit = 0, bucket_size
    return [*filled, (size, 1.0)] if size else filled


def sum_seconds(size: int, gpus: int, cluster: Cluster) -> float:
    """Return the seconds of an all-reduce of `size` bytes: in each machine, then between machines."""
    if gpus == 1:
        return 0.0
    in_node = min(gpus, cluster.gpus_per_node)
    nodes = math.ceil(gpus / cluster.gpus_per_node)
    seconds = 2 * math.ceil(math.log2(gpus)) * cluster.latency * 1e-6
    seconds += 2 * (in_node - 1) / in_node * size / (cluster.link_bandwidth * 1e9)
    return seconds + 2 * (nodes - 1) / nodes * size / (cluster.network_bandwidth * 1e9)


def exposed_seconds(workload: Workload, gpus: int, cluster: Cluster) -> float:
    """Return the seconds by which the all-reduce outlasts the backward pass of the last batch of a step."""
    backward = BACKWARD_SHARE * workload.batch_size / workload.images_per_second
    end = 0.0
    for size, full_at in buckets(layers(workload.arch), workload.bucket_size):
        end = max(end, full_at * backward) + sum_seconds(size, gpus, cluster)
    return max(0.0, end - backward)


def simulate(workload: Workload, cluster: Cluster, gpus: int) -> Scaling:
    """Simulate an optimizer step on `gpus` GPUs."""
    batches = max(1, round(workload.step_size / (workload.batch_size * gpus)))
    compute = batches * workload.batch_size / workload.images_per_second
    exposed = exposed_seconds(workload, gpus, cluster)
    # The delays of a process average out over the batches between two all-reduces.
    straggler = compute * cluster.jitter / math.sqrt(batches) * expected_largest(gpus)
    busy = compute + exposed + straggler
    in_node = min(gpus, cluster.gpus_per_node)
    reading = batches * workload.batch_size * in_node / cluster.input_rate if gpus > 1 else 0.0
    waiting = max(0.0, reading - busy)
    lost = {"input": waiting, "straggler": straggler, "sum": exposed}
    rate = batches * workload.batch_size * gpus / (busy + waiting)
    return Scaling(
        gpus,
        rate,
        rate / workload.images_per_second,
        compute,
        exposed,
        straggler,
        waiting,
        max(lost, key=lambda name: lost[name]) if gpus > 1 else "",
    )


def expected_largest(count: int) -> float:
    """Return the expected maximum of `count` standard normal variables (Blom's approximation)."""
    return statistics.NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0


def checkpoint_seconds(arch: str, cluster: Cluster) -> float:
    """Return the seconds to write a checkpoint, which every process waits for once per epoch."""
    weights = sum(layer.gradient for layer in layers(arch))
    return CHECKPOINT_COPIES * weights / (cluster.disk_bandwidth * 1e9)


# Images per second by number of GPUs, from "Training performance: NVIDIA A100 (8x A100 80GB)" in NVIDIA's README.
PUBLISHED = {
    ("efficientnet-b0", "TF32"): {1: 1078, 8: 8193, 16: 16137},
    ("efficientnet-b0", "AMP"): {1: 2489, 8: 16652, 16: 29332},
    ("efficientnet-b4", "TF32"): {1: 157, 8: 1223, 16: 2417, 32: 4813, 64: 9146},
    ("efficientnet-b4", "AMP"): {1: 331, 8: 2570, 16: 4813, 32: 9425, 64: 18900},
}
PUBLISHED_BATCH = {"efficientnet-b0": 256, "efficientnet-b4": 64}


def simulate_published(cluster: Cluster, bucket_size: float) -> list[dict[str, Any]]:
    """Return rows for the table of NVIDIA's README; of each model, only the rate of one GPU is taken from it."""
    rows = []
    for (arch, precision), measured in PUBLISHED.items():
        workload = Workload(arch, measured[1], PUBLISHED_BATCH[arch], bucket_size=bucket_size)
        for gpus, rate in measured.items():
            row = _row(f"{arch} {precision}", workload, cluster, gpus)
            rows.append(row | {"published": rate / measured[1]})
    return rows


def simulate_workload(
    workload: Workload, cluster: Cluster, gpus: Sequence[int], price: float | None = None
) -> list[dict[str, Any]]:
    """Return a row for each number of GPUs, from the measured rate of one.

    Args:
        workload: the training job.
        cluster: the machines.
        gpus: numbers of GPUs.
        price: of a GPU for an hour; None if it is not known, which leaves the cost of an epoch out.
    """
    rows = [_row(workload.arch, workload, cluster, count) for count in gpus]
    if price is None:
        return rows
    return [{**row, "epoch_cost": row["epoch_seconds"] / 3600 * row["gpus"] * price} for row in rows]


def measured_workloads(path: Path, step_size: int, bucket_size: float) -> list[tuple[Workload, float | None]]:
    """Return the training jobs that `effnet benchmark train --json` has measured, each with its price per hour.

    Args:
        path: its file. Of each run, the fastest of this project's implementations counts.
        step_size, bucket_size: as in `Workload`.

    Raises:
        UserError: the file can't be read, or is another one.
    """
    try:
        result = parse_json(path.read_bytes())
        assert isinstance(result, dict)
        return [_measured(run, step_size, bucket_size) for run in result.get("runs", [result])]
    except (OSError, UserError, AssertionError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = one_line(error) or "another file"
        raise UserError(f"--measured {path}: no result of effnet benchmark train --json ({reason})") from None


def _measured(run: dict[str, Any], step_size: int, bucket_size: float) -> tuple[Workload, float | None]:
    rates = [row["images_per_second"] for name, row in run["rows"].items() if name.startswith("effnet")]
    workload = Workload(run["arch"], float(max(rates)), int(run["batch_size"]), step_size, bucket_size)
    return workload, run.get("price_per_hour")


def _row(name: str, workload: Workload, cluster: Cluster, gpus: int) -> dict[str, Any]:
    simulated = simulate(workload, cluster, gpus)
    checkpoint = checkpoint_seconds(workload.arch, cluster)
    milliseconds = {
        part: 1000 * getattr(simulated, part) for part in ("compute", "sum", "straggler", "input")
    }
    return {
        "name": name,
        "gpus": simulated.gpus,
        "images_per_second": simulated.images_per_second,
        "speedup": simulated.speedup,
        "milliseconds": milliseconds,
        "bound": simulated.bound,
        "checkpoint_seconds": checkpoint,
        "epoch_seconds": NUM_IMAGES["train"] / simulated.images_per_second + checkpoint,
    }


def print_simulated(result: dict[str, Any]) -> None:
    """Print a simulation as a table."""
    title = "simulated; milliseconds of a step, seconds of an epoch of ImageNet with its checkpoint"
    table = Table(title=title, box=None)
    table.add_column("model", no_wrap=True)
    for heading in ("GPUs", "images/s", "speedup", "published", "compute", "sum", "straggler", "input"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound", no_wrap=True)
    table.add_column("epoch", justify="right", no_wrap=True)
    has_cost = any("epoch_cost" in row for row in result["simulated"])
    if has_cost:
        table.add_column("cost", justify="right", no_wrap=True)
    for row in result["simulated"]:
        table.add_row(
            row["name"],
            str(row["gpus"]),
            f"{row['images_per_second']:.0f}",
            f"{row['speedup']:.2f}",
            f"{row['published']:.2f}" if "published" in row else "",
            *(f"{row['milliseconds'][part]:.1f}" for part in ("compute", "sum", "straggler", "input")),
            row["bound"],
            f"{row['epoch_seconds']:.1f}",
            *([f"{row['epoch_cost']:.2f}"] if has_cost else []),
        )
    # A file or a pipe has no width, and figures must not be cut off.
    Console(width=max(Console().width, TABLE_WIDTH)).print(table)
