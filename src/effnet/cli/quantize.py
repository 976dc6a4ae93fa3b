"""`effnet quantize`."""

import argparse

from effnet.cli.flags import Commands
from effnet.cli.train import add_data_flags, run_recipe


def add_quantize(commands: Commands, prog: str | None) -> None:
    """Add `effnet quantize`."""
    name = prog or "effnet quantize"
    parser = commands.add_parser(
        "quantize",
        prog=name,
        usage=f"{name} DIR [options]",
        help="quantize a model to INT8, and fine-tune it",
    )
    add_data_flags(parser)
    parser.set_defaults(command=_quantize)


def _quantize(namespace: argparse.Namespace) -> int:
    from effnet.quantization.run import quantize

    return run_recipe(namespace, "quantize", quantize)
