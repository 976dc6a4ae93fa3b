"""Recipes in the format of NVIDIA's `launch.py --cfg_file`, under the names of our settings.

The file is YAML with four sections, of which later ones win over earlier ones. Anchors and merge keys may be used;
other sections, which hold anchors, are ignored:

    precision: {AMP: {amp: true, ...}}
    platform: {DGXA100: {workers: 10, ...}}
    models: {efficientnet-b0: {DGXA100: {AMP: {arch: efficientnet-b0, batch_size: 256, ...}}}}
    mode: {convergence: {save_checkpoints: true, ...}}
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effnet.recipe import Recipe, read_yaml
from effnet.recipe.catalog import DEFAULT_MODE, Layer, Published, alias_of, command_of
from effnet.runtime.errors import UserError, one_line

# Defaults of NVIDIA's implementation that differ from ours.
_DEFAULTS = {"memory_format": "nchw"}
# NVIDIA's name of a setting and ours, where they differ. AMP's loss scale is dynamic and starts at the one given.
_NAMES = {"static_loss_scale": "initial_loss_scale", "raport_file": "report_file"}


def configured(path: Path, name: str) -> Published:
    """Compose a recipe of a configuration file.

    Args:
        path: the file.
        name: ``MODEL/PLATFORM/PRECISION[/MODE]``.

    Raises:
        UserError: the file can't be read, lacks a part of the name, or sets an unknown setting or a value out of range.
    """
    content = read_yaml(path)
    parts = name.split("/")
    if len(parts) not in (3, 4):
        raise UserError(f"--recipe {name}: --cfg-file takes MODEL/PLATFORM/PRECISION[/MODE] of {path}")
    model, platform, precision, mode = (*parts, DEFAULT_MODE)[:4]
    sections = [("precision", precision), ("platform", platform), ("models", model), ("mode", mode)]
    try:
        found = {section: _part(content.get(section), section, wanted) for section, wanted in sections}
        of_platform = _part(found["models"], f"models: {model}", platform)
        found["models"] = _part(of_platform, f"models: {model}: {platform}", precision)
        layers = [Layer("NVIDIA's default", _DEFAULTS)]
        layers += [
            Layer(f"{path}: {section}", _translated(values, precision)) for section, values in found.items()
        ]
        for layer in layers:
            Recipe().replace(layer.values)
    except UserError as error:
        raise UserError(f"--cfg-file {path}: {one_line(error)}") from None
    return Published(f"{model}/{platform}/{precision}/{mode}", command_of(model), tuple(layers))


def _part(section: object, where: str, wanted: str) -> Mapping[str, Any]:
    if not isinstance(section, Mapping):
        raise UserError(f"{where} must hold named parts, not {section!r}")
    part = section.get(wanted, section.get(alias_of(wanted)))
    if not isinstance(part, Mapping):
        raise UserError(f"{where} has no {wanted}; it has {', '.join(map(str, section)) or 'nothing'}")
    return part


def _translated(values: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """Return the settings under our names, without those that are None and so not given."""
    settings: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        if name == "amp":
            settings["precision"] = "amp" if value else _without_amp(precision)
        elif name == "save_checkpoints":
            settings["no_checkpoints"] = not value
        else:
            settings[_NAMES.get(name, name)] = value
    return settings


def _without_amp(precision: str) -> str:
    return "tf32" if precision == "TF32" else "fp32"
