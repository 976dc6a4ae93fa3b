"""`python -m benchmarks profile`."""

import argparse

from effnet.cli.arguments import integer
from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands, add_recipe_flags, given_settings
from effnet.recipe import Recipe


def add_profile(commands: Commands) -> None:
    """Add `python -m benchmarks profile`."""
    profile = commands.add_parser("profile", help="the most expensive kernels of training and inference")
    add_result_flags(profile)
    profile.add_argument(
        "--steps", type=integer(1, 10_000), default=10, help="steps under the profiler [default: 10]"
    )
    profile.add_argument("--most", type=integer(1, 1000), default=10, help="kernels to report [default: 10]")
    add_recipe_flags(profile)
    profile.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.profile import ProfileBenchmark, benchmark_profile, print_table

    recipe = Recipe().replace(given_settings(namespace))
    result = benchmark_profile(ProfileBenchmark(recipe, namespace.steps, namespace.most))
    return conclude(namespace, result, print_table)
