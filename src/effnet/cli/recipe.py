"""The recipe of a command and the source of each of its settings."""

import argparse
import os
from collections.abc import Mapping
from typing import Any

from effnet.cli.arguments import path
from effnet.cli.flags import Parser, given_settings
from effnet.cli.messages import say
from effnet.recipe import Recipe, settings


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


def command_recipe(
    namespace: argparse.Namespace, command: str = "train", changes: Mapping[str, Any] | None = None
) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe of a command: defaults, overridden by a resumed checkpoint, the recipe file and the flags.

    Args:
        namespace: parsed flags of a parser with `add_recipe_source` and `add_recipe_flags`.
        command: `train` or `quantize`; a recipe of the other command is refused.
        changes: settings in place of those given.

    Returns:
        The recipe, and the source of each setting that does not have its default.
    """
    from effnet.fitting.compose import compose_recipe

    flags = given_settings(namespace) | dict(changes or {})
    if (model := getattr(namespace, "model", None)) is not None:
        flags["pretrained_from_file"] = model
    return compose_recipe(flags, command=command, recipe=namespace.recipe, cfg_file=namespace.cfg_file)


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
