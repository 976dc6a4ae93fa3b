"""`effnet find-lr`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.cli.arguments import integer, number, path
from effnet.cli.flags import Commands
from effnet.cli.train import add_data_flags, run_recipe
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError

if TYPE_CHECKING:
    from effnet.data import DataPlace


def add_find_lr(commands: Commands, prog: str | None) -> None:
    """Add `effnet find-lr`."""
    parser = commands.add_parser(
        "find-lr", prog=prog, help="try rising learning rates for some steps, and suggest one for --lr"
    )
    add_data_flags(parser, without=("quantization",))
    add = parser.add_argument
    add("--from-lr", type=number(1e6), default=1e-6, metavar="X", help="first rate [default: 1e-06]")
    add("--to-lr", type=number(1e6), default=1.0, metavar="X", help="last rate [default: 1]")
    add("--steps", type=integer(10, 100_000), default=100, metavar="N", help="steps [default: 100]")
    add("--csv", type=path, metavar="FILE", help="write rate and loss of each step")
    add("--plot", type=path, metavar="FILE", help="draw them, as .png or .svg (effnet[plots])")
    parser.set_defaults(command=_find_lr)


def _find_lr(namespace: argparse.Namespace) -> int:
    from effnet.training.find_lr import draw, find_lr

    if namespace.from_lr >= namespace.to_lr:
        raise UserError(
            f"--from-lr {namespace.from_lr:g} is not below --to-lr {namespace.to_lr:g}; give a lower one"
        )

    def work(recipe: Recipe, place: "DataPlace | None") -> None:
        sweep = find_lr(
            recipe, place, lowest=namespace.from_lr, highest=namespace.to_lr, steps=namespace.steps
        )
        if namespace.csv:
            sweep.write_csv(Path(namespace.csv))
        if namespace.plot:
            draw(sweep, Path(namespace.plot))
        lowest = min(sweep.smoothed)
        print(f"{len(sweep.rates)} steps, lowest smoothed loss {lowest:.4f}")
        print(f"suggestion: --lr {sweep.suggestion:.2g}")

    return run_recipe(namespace, "train", work)
