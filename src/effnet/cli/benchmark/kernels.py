"""`effnet benchmark kernels`."""

import argparse

from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands, add_recipe_flags, given_settings
from effnet.recipe import Recipe


def add_kernels(forms: Commands) -> None:
    """Add `effnet benchmark kernels`."""
    kernels = forms.add_parser(
        "kernels", help="depthwise kernels beside the library's, shape by shape; needs a GPU"
    )
    add_result_flags(kernels)
    add_recipe_flags(kernels)
    kernels.set_defaults(command=_benchmark_kernels)


def _benchmark_kernels(namespace: argparse.Namespace) -> int:
    from effnet.benchmark.kernels import benchmark_kernels, print_table

    result = benchmark_kernels(Recipe().replace(given_settings(namespace)))
    return conclude(namespace, result, print_table)
