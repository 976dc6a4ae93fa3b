"""`python -m benchmarks kernels`."""

import argparse

from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands, add_recipe_flags, given_settings
from effnet.recipe import Recipe


def add_kernels(commands: Commands) -> None:
    """Add `python -m benchmarks kernels`."""
    kernels = commands.add_parser(
        "kernels", help="the depthwise kernels beside cuDNN's, shape by shape; needs a GPU"
    )
    add_result_flags(kernels)
    add_recipe_flags(kernels)
    kernels.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.kernels import benchmark_kernels, print_table

    result = benchmark_kernels(Recipe().replace(given_settings(namespace)))
    return conclude(namespace, result, print_table)
