"""Names that a package imports from its modules when they are first used (PEP 562)."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package whose names are imported on first use.

    Args:
        package: the package's `__name__`.
        modules: full name of the module that defines each of the package's names.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 (the name that Python looks for)
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return __getattr__
