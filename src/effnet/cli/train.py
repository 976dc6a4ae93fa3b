"""`effnet train` and `effnet evaluate`."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from effnet.cli.flags import Parser, Verbs, add_recipe_flags
from effnet.cli.messages import shown_log
from effnet.cli.recipe import add_recipe_source, command_recipe, print_recipe
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError


def add_train(verbs: Verbs, prog: str | None) -> None:
    """Add `effnet train`."""
    name = prog or "effnet train"
    parser = verbs.add_parser(
        "train", prog=name, usage=f"{name} DIR [options]", help="train a model on a folder of images"
    )
    add_data_flags(parser, without=("quantization",))
    parser.set_defaults(verb=_train)


def add_evaluate(verbs: Verbs, prog: str | None) -> None:
    """Add `effnet evaluate`."""
    name = prog or "effnet evaluate"
    parser = verbs.add_parser(
        "evaluate", prog=name, usage=f"{name} DIR [options]", help="validate a checkpoint or weights"
    )
    add_data_flags(parser, without=("quantization",))
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="weights, or a file of effnet export; as --pretrained-from-file",
    )
    parser.set_defaults(verb=_train, evaluate=True)


def add_data_flags(parser: Parser, without: Sequence[str] = ()) -> None:
    """Add the folder, the recipe and every setting but those of the groups `without`."""
    parser.add_argument("dir", metavar="DIR", nargs="?", help="folder with train/<class>/ and val/<class>/")
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


def run_recipe(
    namespace: argparse.Namespace, verb: str, work: Callable[[Recipe, Path | None], object]
) -> int:
    """Do what a command with a recipe asks for: show the recipe, evaluate, or `work`; gives the exit code.

    Args:
        namespace: parsed flags of a parser with `add_data_flags`.
        verb: `train` or `quantize`.
        work: called with the recipe and the folder of images, which only synthetic ones do without.
    """
    from effnet.data.backends import BACKENDS
    from effnet.inference.evaluate import evaluate

    with shown_log():
        recipe, sources = command_recipe(namespace, verb)
        if namespace.print_recipe:
            print_recipe(recipe, sources)
            return 0
        if namespace.dir is None and BACKENDS[recipe.data.data_backend].reads_path:
            raise UserError("name the folder of images, or use --data-backend synthetic")
        path = Path(namespace.dir) if namespace.dir is not None else None
        if recipe.run.evaluate:
            evaluate(recipe, path, as_json=namespace.json)
        else:
            work(recipe, path)
    return 0
