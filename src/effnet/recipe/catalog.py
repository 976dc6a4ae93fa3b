"""The published recipes by name: model x platform x precision x mode, composed from the files in `recipes/`.

``efficientnet-b0/DGXA100/AMP`` is `base.yaml`, then the files of its model, precision, platform and mode, each over the
one before. A new model or platform is a new file.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from effnet.recipe import Recipe, flatten, read_recipe, read_yaml
from effnet.runtime.errors import UserError
from effnet.runtime.suggestions import suggested, suggested_path

ROOT = Path(__file__).parent.parent / "recipes"
DEFAULT_MODE = "convergence"
DEVIATIONS = ROOT / "deviations.yaml"
_NO_RECIPES = {"base.yaml", DEVIATIONS.name}


@dataclass(frozen=True)
class Layer:
    """Settings from one source, such as a file or the command line.

    Attributes:
        source: where they come from, for people.
        values: settings by name.
    """

    source: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Deviation:
    """A setting of the published recipes that differs from NVIDIA's on purpose, or that NVIDIA leaves open.

    Attributes:
        setting: name of the setting.
        where: patterns of ``MODEL/PLATFORM/PRECISION/MODE``, as `fnmatch` reads them.
        reference: NVIDIA's value; None where it states none.
        ours: value of our recipes.
        reason: why.
        effect: consequences for a run.
    """

    setting: str
    where: tuple[str, ...]
    reference: Any
    ours: Any
    reason: str
    effect: str

    def applies_to(self, name: str) -> bool:
        """Return True if the recipe called `name` is one of those that differ."""
        return any(fnmatchcase(name, pattern) for pattern in self.where)


@dataclass(frozen=True)
class Published:
    """A published recipe.

    Attributes:
        name: ``MODEL/PLATFORM/PRECISION/MODE``.
        command: command of `effnet` that runs it, `train` or `quantize`; empty for a single file, which serves either.
        layers: its settings, later ones over earlier ones.
    """

    name: str
    command: str
    layers: tuple[Layer, ...]


def names(kind: str) -> list[str]:
    """Return the names of a kind: `models`, `platforms`, `precisions` or `modes`."""
    return sorted(path.stem for path in (ROOT / kind).glob("*.yaml"))


def published(model: str, platform: str, precision: str, mode: str = DEFAULT_MODE) -> Published:
    """Compose a published recipe.

    Raises:
        UserError: there is no such model, platform, precision or mode, or the platform can't do the precision.
    """
    of_model = _part("models", model)
    of_platform = _part("platforms", platform)
    if "same_as" in of_platform:
        of_platform = _part("platforms", of_platform["same_as"])
    _part("precisions", precision)
    _part("modes", mode)
    if reason := of_platform.get("refused", {}).get(precision):
        raise UserError(f"{precision} on {platform}: {reason}")
    batch = of_platform["batch_size"][of_model["size"]][precision]
    of_batch = batch if isinstance(batch, Mapping) else {"batch_size": batch}
    layers = (
        _plain("base.yaml"),
        Layer(_shown(f"models/{model}.yaml"), flatten(of_model["settings"])),
        _plain(f"precisions/{precision}.yaml"),
        Layer(
            _shown(f"platforms/{platform}.yaml"),
            {**of_batch, **flatten(of_platform.get("settings", {}))},
        ),
        _plain(f"modes/{mode}.yaml"),
    )
    return Published(f"{model}/{platform}/{precision}/{mode}", of_model["command"], layers)


def command_of(model: str) -> str:
    """Return the command that trains a model: that of its published recipe, or `train` where there is none."""
    return str(_part("models", model)["command"]) if model in names("models") else "train"


def alias_of(name: str) -> str:
    """Return the platform whose settings a published platform has, or the name itself."""
    known = _part("platforms", name) if name in names("platforms") else {}
    return str(known.get("same_as", name))


def find_recipe(name: str) -> Published:
    """Find the recipe that ``--recipe`` names.

    Args:
        name: a YAML file, a single published file such as ``finetune``, or ``MODEL/PLATFORM/PRECISION[/MODE]`` of the
            published recipes; a leading ``recipes/`` is ignored.

    Raises:
        UserError: there is no recipe of that name, or it can't be read.
    """
    if Path(name).is_file():
        return Published(name, "", (Layer(name, read_recipe(name)),))
    parts = name.removeprefix("recipes/").split("/")
    if len(parts) in (3, 4) and not name.endswith(".yaml"):
        try:
            return published(*parts)
        except UserError as error:
            raise UserError(f"--recipe {name}: {error}") from None
    if len(parts) == 1 and (file := f"{parts[0].removesuffix('.yaml')}.yaml") in _single_files():
        return Published(name, "", (_plain(file),))
    known = [file.removesuffix(".yaml") for file in _single_files()]
    singles, near = ", ".join(known), suggested(name, known) or suggested_path(name)
    raise UserError(
        f"--recipe {name}: no such file; published ones are MODEL/PLATFORM/PRECISION[/MODE], such as "
        f"efficientnet-b0/DGXA100/AMP, and {singles}{near}"
    )


def compose(layers: Iterable[Layer]) -> tuple[Recipe, dict[str, str]]:
    """Return the recipe of layers, later ones over earlier ones, and the source of each setting that a layer sets."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for layer in layers:
        values |= layer.values
        sources |= dict.fromkeys(layer.values, layer.source)
    return Recipe().replace(values), sources


def deviations() -> tuple[Deviation, ...]:
    """Return the rows of `recipes/deviations.yaml`."""
    rows = read_yaml(DEVIATIONS)["deviations"]
    return tuple(Deviation(**{**row, "where": tuple(row["where"])}) for row in rows)


def deviations_table() -> str:
    """Return the rows of `deviations` as a Markdown table, for `docs/differences.md`."""
    lines = [
        "| setting | recipes | NVIDIA | here | why | what it changes |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in deviations():
        where = ", ".join(f"`{pattern}`" for pattern in row.where)
        theirs = "not given" if row.reference is None else row.reference
        lines.append(f"| `{row.setting}` | {where} | {theirs} | {row.ours} | {row.reason} | {row.effect} |")
    return "\n".join(lines) + "\n"


def _single_files() -> list[str]:
    return sorted(path.name for path in ROOT.glob("*.yaml") if path.name not in _NO_RECIPES)


@cache
def _plain(file: str) -> Layer:
    return Layer(_shown(file), read_recipe(ROOT / file))


def _shown(file: str) -> str:
    return f"recipes/{file}"


@cache
def _part(kind: str, name: str) -> Mapping[str, Any]:
    known = names(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"no published {kind.removesuffix('s')} {name!r}; {hint}")
    return read_yaml(ROOT / kind / f"{name}.yaml")
