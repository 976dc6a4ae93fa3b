"""The recipe of a run and the source of each of its settings."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from effnet.inference.engines import is_exported
from effnet.recipe import Recipe
from effnet.recipe.catalog import Layer, Published, compose, find_recipe
from effnet.recipe.cfg_file import configured
from effnet.recipe.contradictions import FLAG, check_together
from effnet.runtime.errors import UserError
from effnet.training.checkpoint import CheckpointFiles
from effnet.training.resume import inherited_settings, resume_path
from effnet.weights import read_metadata


def compose_recipe(
    given: Mapping[str, Any],
    *,
    command: str = "train",
    recipe: str | None = None,
    cfg_file: str | None = None,
) -> tuple[Recipe, dict[str, str]]:
    """Compose defaults, a resumed checkpoint's settings, a recipe file and the settings given; later ones win.

    Args:
        given: settings by name.
        command: `train` or `quantize`; a recipe of the other command is refused.
        recipe: YAML file, or the name of a published recipe.
        cfg_file: file in the format of NVIDIA's `launch.py` in which to find `recipe`.

    Returns:
        The recipe, and the source of each setting that does not have its default.

    Raises:
        UserError: settings, a recipe or a checkpoint that can't be used.
    """
    flags = dict(given)
    if "base_lr" in flags:
        # A recipe's learning rate would win over the one that --base-lr asks for.
        flags.setdefault("lr", None)
    found = _found(recipe, cfg_file)
    if found and found.command not in (command, ""):
        raise UserError(f"--recipe {found.name} is a recipe of `effnet {found.command}`")
    layers = [*(found.layers if found else ()), Layer(FLAG, flags)]
    composed, sources = compose(layers)
    check_together(composed, sources)
    _check_file_names(composed)
    on_cpu = composed.compute.device == "cpu" and composed.compute.precision == "tf32"
    if on_cpu and sources["precision"] != FLAG:
        # A platform's recipe with `--device cpu`. An explicit `--precision tf32` is refused when the run starts.
        layers.append(Layer("FP32 in place of TF32, which a CPU lacks", {"precision": "fp32"}))
    if composed.run.resume is None:
        return compose([_named_model(layers), *layers])
    resumed = resume_path(composed.run)
    origin = [Layer(f"checkpoint {resumed}", inherited_settings(resumed))] if resumed else []
    return compose([*origin, *layers, Layer(f"--resume {composed.run.resume}", {"resume": resumed})])


def _check_file_names(recipe: Recipe) -> None:
    """Refuse files of a workspace that would replace each other."""
    latest, log = recipe.run.checkpoint_filename, recipe.run.report_file
    for flag, name in (("--checkpoint-filename", latest), ("--report-file", log)):
        if name == CheckpointFiles.BEST or fnmatchcase(name, "checkpoint_????.pth.tar"):
            raise UserError(f"{flag} {name} is the name of another checkpoint of the workspace; take another")
    if latest == log:
        raise UserError(f"--checkpoint-filename and --report-file are both {log}; they must differ")


def _found(recipe: str | None, cfg_file: str | None) -> Published | None:
    """Return the recipe that a name selects, in a file of NVIDIA's format or among the published ones."""
    if cfg_file is None:
        return find_recipe(recipe) if recipe else None
    if not recipe:
        raise UserError("--cfg-file needs --recipe MODEL/PLATFORM/PRECISION[/MODE] to find in it")
    return configured(Path(cfg_file), recipe)


def _named_model(layers: list[Layer]) -> Layer:
    """Return the model stored in a weight file, for a run that does not name one."""
    given: dict[str, Any] = {}
    for layer in layers:
        given |= layer.values
    file = given.get("pretrained_from_file")
    if not file or "arch" in given or is_exported(Path(file)):
        return Layer("weights", {})
    metadata = read_metadata(file)
    return Layer(str(file), {"arch": metadata.model} if metadata else {})
