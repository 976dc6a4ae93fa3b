"""`python -m benchmarks roofline`."""

import argparse

from effnet.cli.arguments import number
from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands, add_recipe_flags, given_settings
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError


def add_roofline(commands: Commands) -> None:
    """Add `python -m benchmarks roofline`."""
    roofline = commands.add_parser(
        "roofline", help="bytes, operations and time of each stage beside the machine's limits"
    )
    add_result_flags(roofline)
    roofline.add_argument(
        "--copy-rate",
        type=number(1_000_000),
        metavar="GB/S",
        help="copy rate of a machine that is not at hand; needs --matrix-rate, and nothing is run",
    )
    roofline.add_argument(
        "--matrix-rate", type=number(1_000_000), metavar="TFLOP/S", help="rate of its large matrix products"
    )
    add_recipe_flags(roofline)
    roofline.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.ceilings import Ceilings
    from benchmarks.roofline import RooflineBenchmark, benchmark_roofline, print_table

    rates = (namespace.copy_rate, namespace.matrix_rate)
    if any(rate is not None and not rate > 0 for rate in rates) or (rates[0] is None) != (rates[1] is None):
        raise UserError("--copy-rate and --matrix-rate go together, and are above 0")
    given = Ceilings(1e9 * rates[0], 1e12 * rates[1], measured=False) if None not in rates else None
    recipe = Recipe().replace(given_settings(namespace))
    result = benchmark_roofline(RooflineBenchmark(recipe, given))
    return conclude(namespace, result, print_table)
