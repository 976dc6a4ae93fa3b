"""`python -m benchmarks checkpoint`."""

import argparse
from pathlib import Path

from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands, add_recipe_flags, given_settings
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError


def add_checkpoint(commands: Commands) -> None:
    """Add `python -m benchmarks checkpoint`."""
    checkpoint = commands.add_parser(
        "checkpoint", help="training with checkpoints in the background beside training without"
    )
    add_result_flags(checkpoint)
    checkpoint.add_argument(
        "--folder", metavar="DIR", help="write checkpoints here [default: the folder of temporary files]"
    )
    checkpoint.add_argument(
        "--every", type=int, default=50, metavar="STEPS", help="steps between checkpoints [default: 50]"
    )
    checkpoint.add_argument("--saves", type=int, default=2, help="checkpoints in a round [default: 2]")
    checkpoint.add_argument(
        "--rounds", type=int, default=5, help="rounds, of which the median is taken [default: 5]"
    )
    add_recipe_flags(checkpoint)
    checkpoint.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.checkpoint import CheckpointBenchmark, benchmark_checkpoint, print_table

    if min(namespace.every, namespace.saves, namespace.rounds) < 1 or namespace.every < 2:
        raise UserError("--every must be at least 2, --saves and --rounds at least 1")
    settings = CheckpointBenchmark(
        Recipe().replace(given_settings(namespace)),
        Path(namespace.folder) if namespace.folder else None,
        every=namespace.every,
        saves=namespace.saves,
        rounds=namespace.rounds,
    )
    return conclude(namespace, benchmark_checkpoint(settings), print_table)
