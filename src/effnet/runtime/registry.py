"""Registries: the rows of one kind by name.

The names come from a list that can be read without the rows (`effnet.recipe.choices`), so that a command line knows
what it offers before PyTorch is imported.
"""

import typing
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Protocol, TypeVar


class Named(Protocol):
    """A row of a registry."""

    @property
    def name(self) -> str:
        """Value of the setting that selects the row."""

    @property
    def summary(self) -> str:
        """One line for the documentation's table."""


Row = TypeVar("Row", bound=Named)


def registry(choices: Any, *rows: Row) -> Mapping[str, Row]:
    """Return rows by name.

    Args:
        choices: `Literal` type of the names.
        rows: one row for each name, in any order.

    Returns:
        The rows in the order of `choices`.

    Raises:
        ValueError: a row without a name in `choices`, or a name without a row.
    """
    names = typing.get_args(choices)
    by_name = {row.name: row for row in rows}
    if by_name.keys() != set(names) or len(rows) != len(names):
        raise ValueError(f"rows {[row.name for row in rows]} for the names {list(names)}")
    return {name: by_name[name] for name in names}


class ModuleRegistry(Mapping[str, Row]):
    """Rows that are modules of a package, each imported when it is first asked for.

    The module of ``dali-cpu`` is ``dali_cpu.py``.

    Args:
        choices: `Literal` type of the names.
        package: package that holds the modules.
        attribute: name of the row in each module.
    """

    def __init__(self, choices: Any, package: str, attribute: str) -> None:
        self._names = typing.get_args(choices)
        self._package, self._attribute = package, attribute

    def __getitem__(self, name: str) -> Row:
        if name not in self._names:
            raise KeyError(name)
        row: Row = getattr(import_module(f"{self._package}.{name.replace('-', '_')}"), self._attribute)
        if row.name != name:
            raise ValueError(f"{self._package}: the row of {name!r} calls itself {row.name!r}")
        return row

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names
