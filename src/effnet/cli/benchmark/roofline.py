"""`effnet benchmark roofline`."""

import argparse

from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands, add_recipe_flags, given_settings
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError


def add_roofline(forms: Commands) -> None:
    """Add `effnet benchmark roofline`."""
    roofline = forms.add_parser(
        "roofline", help="each stage's bytes and operations beside what the machine allows"
    )
    add_result_flags(roofline)
    roofline.add_argument(
        "--copy-rate",
        type=float,
        metavar="GB/S",
        help="count for a machine that copies so fast; with --matrix-rate, and nothing is run",
    )
    roofline.add_argument("--matrix-rate", type=float, metavar="TFLOP/S", help="its matrix product")
    add_recipe_flags(roofline)
    roofline.set_defaults(command=_benchmark_roofline)


def _benchmark_roofline(namespace: argparse.Namespace) -> int:
    from effnet.benchmark.ceilings import Ceilings
    from effnet.benchmark.roofline import RooflineBenchmark, benchmark_roofline, print_table

    rates = (namespace.copy_rate, namespace.matrix_rate)
    if any(rate is not None and not rate > 0 for rate in rates) or (rates[0] is None) != (rates[1] is None):
        raise UserError("--copy-rate and --matrix-rate go together, and are above 0")
    given = Ceilings(1e9 * rates[0], 1e12 * rates[1], measured=False) if None not in rates else None
    recipe = Recipe().replace(given_settings(namespace))
    result = benchmark_roofline(RooflineBenchmark(recipe, given))
    return conclude(namespace, result, print_table)
