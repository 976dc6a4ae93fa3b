"""`effnet train` and `effnet evaluate`."""

import argparse
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.cli.arguments import path
from effnet.cli.flags import Commands, Parser, add_recipe_flags
from effnet.cli.messages import shown_log
from effnet.cli.recipe import add_recipe_source, command_recipe, print_recipe
from effnet.cli.sources import DATA_HELP
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError

if TYPE_CHECKING:
    from effnet.data import DataPlace


def add_train(commands: Commands, prog: str | None) -> None:
    """Add `effnet train`."""
    name = prog or "effnet train"
    parser = commands.add_parser(
        "train", prog=name, usage=f"{name} DIR [options]", help="train a model on a folder of images"
    )
    add_data_flags(parser, without=("quantization",))
    parser.set_defaults(command=_train)


def add_evaluate(commands: Commands, prog: str | None) -> None:
    """Add `effnet evaluate`."""
    name = prog or "effnet evaluate"
    parser = commands.add_parser(
        "evaluate", prog=name, usage=f"{name} DIR [options]", help="validate a checkpoint or weights"
    )
    add_data_flags(parser, without=("quantization",))
    parser.add_argument(
        "model",
        type=path,
        metavar="MODEL",
        nargs="?",
        help="weights, or a file of effnet export; as --pretrained-from-file",
    )
    parser.set_defaults(command=_evaluate, evaluate=True)


def add_data_flags(parser: Parser, without: Sequence[str] = ()) -> None:
    """Add the folder, the recipe and every setting, except the groups `without`."""
    parser.add_argument("dir", type=path, metavar="DIR", nargs="?", help=DATA_HELP)
    add_recipe_source(parser)
    parser.add_argument(
        "--json", action="store_true", help="evaluation: print one JSON object with the metrics"
    )
    add_recipe_flags(parser, without)


def _train(namespace: argparse.Namespace) -> int:
    from effnet.training.run import train

    if hasattr(namespace, "jit"):
        print("--jit: TorchScript is superseded; use --compile for a compiled training step")
    return run_recipe(namespace, "train", train)


def _evaluate(namespace: argparse.Namespace) -> int:
    if not namespace.evaluate:
        raise UserError("--no-evaluate: `effnet evaluate` evaluates; to train, use `effnet train`")
    return _train(namespace)


def run_recipe(
    namespace: argparse.Namespace, command: str, work: "Callable[[Recipe, DataPlace | None], object]"
) -> int:
    """Run a command with a recipe: print the recipe, evaluate, or `work`; return the exit code.

    Args:
        namespace: parsed flags of a parser with `add_data_flags`.
        command: `train` or `quantize`.
        work: called with the recipe and the folder of images, None for synthetic images.
    """
    from effnet.data.backends import BACKENDS
    from effnet.fitting.folds import cross_validate, runs_folds
    from effnet.inference.evaluate import evaluate

    quiet = getattr(namespace, "quiet", False)
    with shown_log(logging.WARNING if quiet else logging.INFO):
        recipe, sources = command_recipe(namespace, command)
        if namespace.json and not recipe.run.evaluate:
            raise UserError("--json is for evaluation; give --evaluate, or `effnet evaluate`")
        if namespace.print_recipe:
            print_recipe(recipe, sources)
            return 0
        if namespace.dir is None and BACKENDS[recipe.data.data_backend].reads_path:
            raise UserError("no folder of images given; pass one, or use --data-backend synthetic")
        path = Path(namespace.dir) if namespace.dir is not None else None
        if recipe.run.evaluate:
            evaluate(recipe, path, as_json=namespace.json)
        elif runs_folds(recipe):
            cross_validate(
                recipe, sources, path, lambda own: command_recipe(namespace, command, own)[0], work
            )
        else:
            work(recipe, path)
    return 0
