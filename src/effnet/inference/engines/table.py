"""The table of engines, and the choice among them.

A new engine is a module here that makes an `ENGINE`, and its name in `effnet.recipe.choices.EngineName`.
"""

from pathlib import Path

import torch

from effnet.export.session import needs_decoders
from effnet.inference.engines.form import EngineKind
from effnet.recipe.choices import EngineName
from effnet.runtime.errors import UserError
from effnet.runtime.registry import ModuleRegistry

ENGINES: ModuleRegistry[EngineKind] = ModuleRegistry(EngineName, "effnet.inference.engines", "ENGINE")
"""the registry, by the value of ``--engine``, in the order in which they are taken where nothing is measured"""


def for_weights(device: torch.device) -> list[EngineKind]:
    """Return the engines installed that run weights, in the order of the registry."""
    return [kind for kind in ENGINES.values() if kind.runs_on(device) and kind.from_weights is not None]


def is_exported(path: Path | None) -> bool:
    """Return True if a file is for an engine other than PyTorch."""
    return path is not None and any(path.suffix in kind.suffixes for kind in ENGINES.values())


def kind_of_file(path: Path, device: torch.device) -> EngineKind:
    """Return the first engine installed that reads a file.

    Raises:
        UserError: none of them does.
    """
    return reading(path, device)[0]


def readers(path: Path, device: torch.device) -> list[EngineKind]:
    """Return the engines installed that read a file; see `reading`."""
    return [kind for kind in _for_file(path) if kind.runs_on(device)]


def _for_file(path: Path) -> list[EngineKind]:
    kinds = [kind for kind in ENGINES.values() if path.suffix in kind.suffixes]
    return [kind for kind in kinds if kind.decodes] if needs_decoders(path) else kinds


def reading(path: Path, device: torch.device) -> list[EngineKind]:
    """Return the engines installed that read a file.

    Raises:
        UserError: there are none.
    """
    if here := readers(path, device):
        return here
    names = " or ".join(kind.name for kind in _for_file(path))
    raise UserError(f"{path} needs {names}, which is not installed or does not run on {device.type}")
