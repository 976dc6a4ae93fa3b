"""`effnet benchmark kernels`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Verbs, add_recipe_flags, given_settings
from effnet.recipe import Recipe


def add_kernels(forms: Verbs) -> None:
    """Add `effnet benchmark kernels`."""
    kernels = forms.add_parser(
        "kernels", help="depthwise kernels beside the library's, shape by shape; needs a GPU"
    )
    kernels.add_argument("--json", metavar="FILE", help="write the result here")
    add_recipe_flags(kernels)
    kernels.set_defaults(verb=_benchmark_kernels)


def _benchmark_kernels(namespace: argparse.Namespace) -> int:
    from effnet.benchmark.kernels import benchmark_kernels, print_table
    from effnet.benchmark.results import write

    result = benchmark_kernels(Recipe().replace(given_settings(namespace)))
    print_table(result)
    if namespace.json:
        write(result, Path(namespace.json))
    return 0
