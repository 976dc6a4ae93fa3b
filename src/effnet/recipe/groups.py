"""Settings in groups, as a recipe holds them: read and changed by the name of a setting."""

import typing
from collections.abc import Iterator, Mapping
from dataclasses import Field, asdict, fields, replace
from typing import Any, ClassVar, Self

from effnet.recipe.fields import checked
from effnet.runtime.errors import UserError


class Groups:
    """Base of the dataclasses whose fields are groups of settings. The name of a setting is unique over all groups."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def replace(self, values: Mapping[str, Any]) -> Self:
        """Return a copy with settings changed, each found by its name; values are checked.

        Raises:
            UserError: no such setting, a value of another type, or one out of range.
        """
        leaves = {leaf.name: (group, leaf) for group, _, leaf in leaves_of(type(self))}
        changes: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            if name not in leaves:
                raise UserError(f"unknown setting {name!r}")
            group, leaf = leaves[name]
            changes.setdefault(group, {})[name] = checked(leaf, value)
        return replace(self, **{group: replace(getattr(self, group), **v) for group, v in changes.items()})

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return the groups as plain values, for YAML, JSON and checkpoints."""
        return {
            group: {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}
            for group, values in asdict(self).items()
        }


def leaves_of(recipe: type[Groups]) -> Iterator[tuple[str, type, Field[Any]]]:
    """Yield every setting of a recipe's class: its group's name, its group's class and its field."""
    for group in fields(recipe):
        cls = typing.cast(type, group.type)
        for leaf in fields(cls):
            yield group.name, cls, leaf
