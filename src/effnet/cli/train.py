"""`effnet train` and `effnet evaluate`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effnet.cli.flags import Parser, Verbs, add_recipe_flags, given_settings
from effnet.cli.messages import shown_log
from effnet.errors import UserError
from effnet.recipe import Recipe, read_recipe


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
    """Add the folder, the recipe file and every setting but those of the groups `without`."""
    parser.add_argument("dir", metavar="DIR", nargs="?", help="folder with train/<class>/ and val/<class>/")
    parser.add_argument("--recipe", metavar="FILE", help="settings as YAML; flags override them")
    parser.add_argument(
        "--json", action="store_true", help="evaluation: print one JSON object with the metrics"
    )
    add_recipe_flags(parser, without)


def _train(namespace: argparse.Namespace) -> int:
    from effnet.inference.evaluate import evaluate
    from effnet.training.run import train

    with shown_log():
        recipe, path = recipe_and_folder(namespace)
        if hasattr(namespace, "jit"):
            print("--jit: TorchScript is superseded; use --compile for a compiled training step")
        if recipe.run.evaluate:
            evaluate(recipe, path, as_json=namespace.json)
        else:
            train(recipe, path)
    return 0


def recipe_and_folder(namespace: argparse.Namespace) -> tuple[Recipe, Path | None]:
    """What a command says: its recipe, and the folder of images, which only synthetic ones do without.

    The recipe is made of the defaults, then what a resumed checkpoint says, then the file, then the flags.
    """
    from effnet.training.checkpoint import inherited_settings

    flags = given_settings(namespace)
    if (model := getattr(namespace, "model", None)) is not None:
        flags["pretrained_from_file"] = model
    from_file = read_recipe(namespace.recipe) if namespace.recipe else {}
    resumed = {**from_file, **flags}.get("resume")
    inherited = inherited_settings(resumed) if resumed else _named_model({**from_file, **flags})
    recipe = Recipe().replace({**inherited, **from_file, **flags})
    if namespace.dir is None and recipe.data.data_backend != "synthetic":
        raise UserError("name the folder of images, or use --data-backend synthetic")
    return recipe, Path(namespace.dir) if namespace.dir is not None else None


def _named_model(given: dict[str, Any]) -> dict[str, Any]:
    """The model that a weight file says it is of, where the command names none."""
    from effnet.inference.engine import is_exported
    from effnet.models.weights import read_metadata

    file = given.get("pretrained_from_file")
    if not file or "arch" in given or is_exported(Path(file)):
        return {}
    metadata = read_metadata(file)
    return {"arch": metadata.model} if metadata else {}
