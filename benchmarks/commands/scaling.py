"""`python -m benchmarks scaling`."""

import argparse
from pathlib import Path
from typing import Any

from effnet.cli.arguments import ANY_INTEGER, ANY_NUMBER, ArgumentType, integer, number, path
from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands, add_recipe_flags, given_settings
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError

# Flags of the simulated cluster, fields of `benchmarks.scaling.Cluster`.
_CLUSTER: dict[str, tuple[ArgumentType[Any], str, str]] = {
    "gpus_per_node": (ANY_INTEGER, "N", "GPUs in a machine [default: 8]"),
    "link_bandwidth": (ANY_NUMBER, "GB/S", "bandwidth of a GPU inside a machine [default: 230]"),
    "network_bandwidth": (ANY_NUMBER, "GB/S", "bandwidth of a machine to the others [default: 180]"),
    "latency": (ANY_NUMBER, "MICROSECONDS", "latency of each round of an all-reduce [default: 15]"),
    "input_rate": (
        ANY_NUMBER,
        "IMAGES/S",
        "images that a machine reads; `effnet benchmark data` measures it [default: 16652]",
    ),
    "jitter": (
        ANY_NUMBER,
        "SHARE",
        "standard deviation of a process's time for a batch [default: 0.043]",
    ),
    "disk_bandwidth": (ANY_NUMBER, "GB/S", "at which a checkpoint is written [default: 1]"),
}


def add_scaling(commands: Commands) -> None:
    """Add `python -m benchmarks scaling`."""
    scaling = commands.add_parser("scaling", help="overhead of DDP on this machine, or a simulated cluster")
    add_result_flags(scaling)
    scaling.add_argument(
        "--rounds", type=integer(1, 100_000), default=15, help="pairs of measurements [default: 15]"
    )
    scaling.add_argument("--steps", type=integer(1, 100_000), default=3, help="steps in each [default: 3]")
    simulated = scaling.add_argument_group("Simulated cluster")
    simulated.add_argument(
        "--simulate",
        action="store_true",
        help="simulate; without --images-per-second the table of NVIDIA's README",
    )
    simulated.add_argument(
        "--images-per-second",
        type=number(1_000_000),
        metavar="X",
        help="measured on one GPU with --arch and --batch-size",
    )
    simulated.add_argument(
        "--measured",
        type=path,
        metavar="FILE",
        help="take model, batch size, images per second and price from effnet benchmark train --json FILE",
    )
    simulated.add_argument(
        "--price-per-hour",
        type=number(1e9),
        metavar="PRICE",
        help="price of a GPU for an hour, in any currency: show the cost of an epoch of ImageNet",
    )
    simulated.add_argument(
        "--gpus",
        type=integer(1, 100_000),
        nargs="+",
        default=[1, 8, 16, 32, 64],
        metavar="N",
        help="numbers of GPUs [default: 1 8 16 32 64]",
    )
    for name, (kind, metavar, words) in _CLUSTER.items():
        flag = "--" + name.replace("_", "-")
        simulated.add_argument(flag, type=kind, metavar=metavar, help=words, default=argparse.SUPPRESS)
    add_recipe_flags(scaling)
    scaling.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.ddp import benchmark_ddp, print_overhead
    from benchmarks.scaling import print_simulated

    recipe = Recipe().replace(given_settings(namespace))
    if namespace.simulate:
        simulated = {"benchmark": "scaling", "simulated": _simulated(namespace, recipe)}
        return conclude(namespace, simulated, print_simulated)
    measured = benchmark_ddp(recipe, rounds=namespace.rounds, steps=namespace.steps)
    return conclude(namespace, measured, print_overhead)


def _simulated(namespace: argparse.Namespace, recipe: Recipe) -> list[dict[str, Any]]:
    from benchmarks.scaling import (
        Cluster,
        Workload,
        measured_workloads,
        simulate_published,
        simulate_workload,
    )

    given = {name: getattr(namespace, name) for name in _CLUSTER if hasattr(namespace, name)}
    values = {**given, "images_per_second": namespace.images_per_second, "gpus": min(namespace.gpus)}
    for name, value in values.items():
        if value is not None and value <= 0 and name not in ("jitter", "latency"):
            raise UserError(f"--{name.replace('_', '-')} must be above 0, not {value:g}")
    cluster, bucket_size = Cluster(**given), recipe.compute.bucket_size
    step_size = recipe.optimizer.optimizer_batch_size or 4096
    price = namespace.price_per_hour
    if namespace.measured:
        if namespace.images_per_second is not None:
            raise UserError("--measured brings the images per second; leave --images-per-second out")
        return [
            row
            for workload, own in measured_workloads(Path(namespace.measured), step_size, bucket_size)
            for row in simulate_workload(workload, cluster, namespace.gpus, own if price is None else price)
        ]
    if namespace.images_per_second is None:
        if price is not None:
            raise UserError("--price-per-hour goes with --images-per-second or --measured FILE")
        return simulate_published(cluster, bucket_size)
    workload = Workload(
        recipe.model.arch,
        namespace.images_per_second,
        (recipe.optimizer.batch_size or 64),
        step_size=step_size,
        bucket_size=bucket_size,
    )
    return simulate_workload(workload, cluster, namespace.gpus, price)
