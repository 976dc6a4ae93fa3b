"""`python -m benchmarks epoch`."""

import argparse
from pathlib import Path

from effnet.cli.arguments import integer
from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands, add_recipe_flags, given_settings
from effnet.recipe import Recipe


def add_epoch(commands: Commands) -> None:
    """Add `python -m benchmarks epoch`."""
    epoch = commands.add_parser("epoch", help="a whole epoch beside its input alone and its step alone")
    epoch.add_argument("dir", metavar="DIR", nargs="?", help="folder of images, or a packed set")
    add_result_flags(epoch)
    epoch.add_argument(
        "--rounds",
        type=integer(1, 100_000),
        default=5,
        help="rounds, of which the median is taken [default: 5]",
    )
    epoch.add_argument(
        "--steps",
        type=integer(1, 100_000),
        default=20,
        help="steps of each measurement in a round [default: 20]",
    )
    add_recipe_flags(epoch)
    epoch.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.epoch import EpochBenchmark, benchmark_epoch, print_table

    recipe = Recipe().replace(given_settings(namespace))
    path = Path(namespace.dir) if namespace.dir is not None else None
    result = benchmark_epoch(EpochBenchmark(recipe, path, rounds=namespace.rounds, steps=namespace.steps))
    return conclude(namespace, result, print_table)
