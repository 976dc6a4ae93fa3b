"""Input backends, one file each.

A new one is a module here that makes a `BACKEND`, and its name in `effnet.recipe.choices.BackendName`.
"""

from effnet.data.backends.form import Backend
from effnet.recipe.choices import BackendName
from effnet.runtime.registry import ModuleRegistry

__all__ = ["BACKENDS", "Backend"]

BACKENDS: ModuleRegistry[Backend] = ModuleRegistry(BackendName, __name__, "BACKEND")
"""the registry, by the value of ``--data-backend``"""
