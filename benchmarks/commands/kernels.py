"""`python -m benchmarks kernels`."""

import argparse

from effnet.cli.arguments import integer
from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands, add_recipe_flags, given_settings
from effnet.recipe import Recipe


def add_kernels(commands: Commands) -> None:
    """Add `python -m benchmarks kernels`."""
    kernels = commands.add_parser(
        "kernels", help="the depthwise kernels beside cuDNN's, shape by shape; needs a GPU"
    )
    add_result_flags(kernels)
    kernels.add_argument("--shapes", type=integer(1, 1000), help="the first N alone", metavar="N")
    kernels.add_argument(
        "--anywhere",
        action="store_true",
        help="on a CPU too, with the operators' plain versions; TRITON_INTERPRET=1 runs the kernels there",
    )
    add_recipe_flags(kernels)
    kernels.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.kernels import benchmark_kernels, print_table

    result = benchmark_kernels(
        Recipe().replace(given_settings(namespace)), shapes=namespace.shapes, anywhere=namespace.anywhere
    )
    return conclude(namespace, result, print_table)
