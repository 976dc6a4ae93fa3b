"""How training scales over GPUs and machines: a small model of a step.

The model takes the measured speed of one GPU and adds what a cluster adds to a step: gradients whose sum outlasts the
backward pass, the wait for the slowest process, and images that a machine can't read as fast as its GPUs take them.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from effnet.models import model_config
from effnet.models.efficientnet import EfficientNet

MEGABYTE = 1 << 20  # as PyTorch counts buckets
FIRST_BUCKET = 1.0  # megabytes; PyTorch's, so that the sum begins early
BACKWARD_SHARE = 2 / 3
GRADIENT_BYTES = 4
# Weights, two states of the optimizer, and the weights' average.
CHECKPOINT_COPIES = 4
EPOCH_IMAGES = 1_281_167  # ImageNet's
TABLE_WIDTH = 110


@dataclass(frozen=True)
class Cluster:
    """Machines of equal GPUs. The defaults are DGX A100s.

    Attributes:
        gpus_per_node: GPUs in a machine.
        link_bandwidth: GB/s at which a GPU takes part in a sum inside a machine; NVLink's with NCCL.
        network_bandwidth: GB/s of a machine to the others; eight 200 Gb/s adapters less their protocol.
        latency: microseconds of each of the 2 log2(GPUs) rounds of a sum.
        input_rate: images a second that a machine reads, decodes and augments.
        jitter: standard deviation of a process's time for a batch, as a share of it.
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
    """What is trained.

    Attributes:
        arch: model.
        images_per_second: measured on one GPU.
        batch_size: images in a batch of one GPU.
        step_size: images in a step of the optimizer, reached by gradient accumulation; a batch of each if that is more.
        bucket_size: megabytes of gradients that are summed at a time.
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
        gpus: how many.
        images_per_second: of all together.
        speedup: over one GPU.
        compute, sum, straggler, input: seconds of a step: the GPUs' own work, the part of the gradients' sum that
            outlasts the backward pass, the wait for the slowest, and what reading the images takes beside all that.
        bound: what costs most of the speed that is lost, `input`, `straggler` or `sum`; empty for one GPU.
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
    """A layer's gradient in bytes, and its share of the backward pass in any unit."""

    gradient: int
    work: int


@cache
def layers(arch: str) -> tuple[Layer, ...]:
    """Layers with parameters from the input to the output; work is the numbers they give, since memory bounds them.

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
    """Buckets in the order of the backward pass: bytes, and the share of that pass after which each is full."""
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
    """Seconds to sum `size` bytes over all GPUs: in each machine, then between n machines, 2 (n - 1) / n times each."""
    if gpus == 1:
        return 0.0
    in_node = min(gpus, cluster.gpus_per_node)
    nodes = math.ceil(gpus / cluster.gpus_per_node)
    seconds = 2 * math.ceil(math.log2(gpus)) * cluster.latency * 1e-6
    seconds += 2 * (in_node - 1) / in_node * size / (cluster.link_bandwidth * 1e9)
    return seconds + 2 * (nodes - 1) / nodes * size / (cluster.network_bandwidth * 1e9)


def exposed_seconds(workload: Workload, gpus: int, cluster: Cluster) -> float:
    """Seconds by which the sum of the gradients outlasts the backward pass of the last batch of a step."""
    backward = BACKWARD_SHARE * workload.batch_size / workload.images_per_second
    end = 0.0
    for size, full_at in buckets(layers(workload.arch), workload.bucket_size):
        end = max(end, full_at * backward) + sum_seconds(size, gpus, cluster)
    return max(0.0, end - backward)


def simulate(workload: Workload, cluster: Cluster, gpus: int) -> Scaling:
    """One step of the optimizer on `gpus` GPUs, against one GPU as it was measured."""
    batches = max(1, round(workload.step_size / (workload.batch_size * gpus)))
    compute = batches * workload.batch_size / workload.images_per_second
    exposed = exposed_seconds(workload, gpus, cluster)
    # Each process's delays average out over the batches between two sums.
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
    """Mean of the largest of `count` standard normal numbers (Blom's approximation); 0 for one."""
    return statistics.NormalDist().inv_cdf((count - 0.375) / (count + 0.25)) if count > 1 else 0.0


def checkpoint_seconds(arch: str, cluster: Cluster) -> float:
    """Seconds to write a checkpoint, for which every process waits once an epoch."""
    weights = sum(layer.gradient for layer in layers(arch))
    return CHECKPOINT_COPIES * weights / (cluster.disk_bandwidth * 1e9)


# The document's "Training performance: NVIDIA A100 (8x A100 80GB)": images a second by GPUs.
DOCUMENT = {
    ("efficientnet-b0", "TF32"): {1: 1078, 8: 8193, 16: 16137},
    ("efficientnet-b0", "AMP"): {1: 2489, 8: 16652, 16: 29332},
    ("efficientnet-b4", "TF32"): {1: 157, 8: 1223, 16: 2417, 32: 4813, 64: 9146},
    ("efficientnet-b4", "AMP"): {1: 331, 8: 2570, 16: 4813, 32: 9425, 64: 18900},
}
DOCUMENT_BATCH = {"efficientnet-b0": 256, "efficientnet-b4": 64}


def simulate_document(cluster: Cluster, bucket_size: float) -> list[dict[str, Any]]:
    """The document's table beside the model, which knows the figure of one GPU alone."""
    rows = []
    for (arch, precision), measured in DOCUMENT.items():
        workload = Workload(arch, measured[1], DOCUMENT_BATCH[arch], bucket_size=bucket_size)
        for gpus, rate in measured.items():
            row = _row(f"{arch} {precision}", workload, cluster, gpus)
            rows.append(row | {"document": rate / measured[1]})
    return rows


def simulate_workload(workload: Workload, cluster: Cluster, gpus: Sequence[int]) -> list[dict[str, Any]]:
    """Rows for a measured speed of one GPU."""
    return [_row(workload.arch, workload, cluster, count) for count in gpus]


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
        "epoch_seconds": EPOCH_IMAGES / simulated.images_per_second + checkpoint,
    }


def print_simulated(result: dict[str, Any]) -> None:
    """Show a simulation to people."""
    title = "simulated; milliseconds of a step, seconds of an epoch of ImageNet with its checkpoint"
    table = Table(title=title, box=None)
    table.add_column("model", no_wrap=True)
    for heading in ("GPUs", "images/s", "speedup", "document", "compute", "sum", "straggler", "input"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound", no_wrap=True)
    table.add_column("epoch", justify="right", no_wrap=True)
    for row in result["simulated"]:
        table.add_row(
            row["name"],
            str(row["gpus"]),
            f"{row['images_per_second']:.0f}",
            f"{row['speedup']:.2f}",
            f"{row['document']:.2f}" if "document" in row else "",
            *(f"{row['milliseconds'][part]:.1f}" for part in ("compute", "sum", "straggler", "input")),
            row["bound"],
            f"{row['epoch_seconds']:.1f}",
        )
    # A file or a pipe has no width; cut figures are of no use.
    Console(width=max(Console().width, TABLE_WIDTH)).print(table)
