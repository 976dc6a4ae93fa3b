"""The recipe of a command and the source of each of its settings."""

import argparse
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from effnet.cli.arguments import path
from effnet.cli.flags import Parser, given_settings
from effnet.cli.messages import say
from effnet.recipe import Recipe, settings
from effnet.recipe.catalog import Layer, Published, compose, find_recipe
from effnet.recipe.cfg_file import configured
from effnet.recipe.contradictions import FLAG, check_together
from effnet.runtime.errors import UserError


def add_recipe_source(parser: Parser) -> None:
    """Add `--recipe`, `--cfg-file` and `--print-recipe`."""
    parser.add_argument(
        "--recipe",
        type=path,
        metavar="FILE|NAME",
        help="settings as YAML, or a published recipe such as efficientnet-b0/DGXA100/AMP; flags override them",
    )
    parser.add_argument(
        "--cfg-file",
        type=path,
        metavar="FILE",
        help="find --recipe MODEL/PLATFORM/PRECISION[/MODE] in this file, in the format of NVIDIA's launch.py, instead "
        "of among the published ones",
    )
    parser.add_argument(
        "--print-recipe", action="store_true", help="print every setting and its source, and stop"
    )


def command_recipe(namespace: argparse.Namespace, command: str = "train") -> tuple[Recipe, dict[str, str]]:
    """Return the recipe of a command: defaults, overridden by a resumed checkpoint, the recipe file and the flags.

    Args:
        namespace: parsed flags of a parser with `add_recipe_source` and `add_recipe_flags`.
        command: `train` or `quantize`; a recipe of the other command is refused.

    Returns:
        The recipe, and the source of each setting that does not have its default.
    """
    from effnet.training.resume import inherited_settings, resume_path

    flags = given_settings(namespace)
    if (model := getattr(namespace, "model", None)) is not None:
        flags["pretrained_from_file"] = model
    if "base_lr" in flags:
        # A recipe's learning rate would win over the one that --base-lr asks for.
        flags.setdefault("lr", None)
    found = _found(namespace)
    if found and found.command not in (command, ""):
        raise UserError(f"--recipe {found.name} is a recipe of `effnet {found.command}`")
    layers = [*(found.layers if found else ()), Layer(FLAG, flags)]
    recipe, sources = compose(layers)
    check_together(recipe, sources)
    _check_file_names(recipe)
    if recipe.compute.device == "cpu" and recipe.compute.precision == "tf32" and sources["precision"] != FLAG:
        # A platform's recipe with `--device cpu`. An explicit `--precision tf32` is refused when the run starts.
        layers.append(Layer("FP32 in place of TF32, which a CPU lacks", {"precision": "fp32"}))
    if recipe.run.resume is None:
        return compose([_named_model(layers), *layers])
    resumed = resume_path(recipe.run)
    origin = [Layer(f"checkpoint {resumed}", inherited_settings(resumed))] if resumed else []
    return compose([*origin, *layers, Layer(f"--resume {recipe.run.resume}", {"resume": resumed})])


def _check_file_names(recipe: Recipe) -> None:
    """Refuse files of a workspace that would replace each other."""
    from effnet.training.checkpoint import CheckpointFiles

    latest, log = recipe.run.checkpoint_filename, recipe.run.report_file
    for flag, name in (("--checkpoint-filename", latest), ("--report-file", log)):
        if name == CheckpointFiles.BEST or fnmatchcase(name, "checkpoint_????.pth.tar"):
            raise UserError(f"{flag} {name} is the name of another checkpoint of the workspace; take another")
    if latest == log:
        raise UserError(f"--checkpoint-filename and --report-file are both {log}; they must differ")


def _found(namespace: argparse.Namespace) -> Published | None:
    """Return the recipe that `--recipe` selects, in a file of NVIDIA's format or among the published ones."""
    if namespace.cfg_file is None:
        return find_recipe(namespace.recipe) if namespace.recipe else None
    if not namespace.recipe:
        raise UserError("--cfg-file needs --recipe MODEL/PLATFORM/PRECISION[/MODE] to find in it")
    return configured(Path(namespace.cfg_file), namespace.recipe)


def _named_model(layers: list[Layer]) -> Layer:
    """Return the model stored in a weight file, for a command that does not name one."""
    from effnet.inference.engines import is_exported
    from effnet.weights import read_metadata

    given: dict[str, Any] = {}
    for layer in layers:
        given |= layer.values
    file = given.get("pretrained_from_file")
    if not file or "arch" in given or is_exported(Path(file)):
        return Layer("weights", {})
    metadata = read_metadata(file)
    return Layer(str(file), {"arch": metadata.model} if metadata else {})


def print_recipe(recipe: Recipe, sources: dict[str, str]) -> None:
    """Print each setting, its value for this number of processes, and its source; in the first process only.

    Settings of quantization are left out for a model without quantizers.
    """
    from effnet.models import model_config
    from effnet.runtime.precision import resolve_precision
    from effnet.runtime.processes import choose_device
    from effnet.training.facts import facts_of

    if os.environ.get("RANK", "0") != "0":
        return
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    here = choose_device("cpu" if recipe.compute.device == "cpu" else "auto")
    facts = facts_of(
        recipe,
        precision=resolve_precision(None, here),
        num_classes=1000,
        world_size=processes,
        resume=recipe.run.resume,
    )
    given, settled = recipe.to_dict(), recipe.resolve(facts).to_dict()
    # Not known before the run starts, as they depend on its machine and weights.
    settled["data"] |= {name: given["data"][name] for name in ("workers", "interpolation", "resize")}
    settled["compute"]["precision"] = recipe.compute.precision or facts.precision
    quantized = model_config(recipe.model.arch).quantized
    rows = []
    for group, _, leaf in settings():
        if group == "quantization" and not quantized:
            continue
        value = settled[group][leaf.name]
        follows = value != given[group][leaf.name]
        source = "follows from the others" if follows else sources.get(leaf.name, "default")
        rows.append((f"{group}.{leaf.name}", _shown(value), source))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, source in rows:
        say(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}")
    processes_named = "1 process" if processes == 1 else f"{processes} processes"
    print(f"for {processes_named}; None: none, or settled when the run starts")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_shown(part) for part in value) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
