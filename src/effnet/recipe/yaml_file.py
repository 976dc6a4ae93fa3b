"""YAML files: the one loader of all of them.

YAML can do more than hold settings, and a small file can stand for gigabytes: an alias repeats what it refers to, and
a merge key copies it. Aliases are expanded up to a limit; what else is not needed for settings is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from effnet.runtime.errors import UserError, one_line
from effnet.runtime.plain import check_plain

_LARGEST_FILE = 256 << 10  # bytes; PyYAML reads about as many in a second
_DEEPEST = 32
_DIGITS = 100  # of a number
_NODES = 20_000  # aliases expanded
_CHARACTERS = 1_000_000


def read_yaml(path: str | Path, kind: str = "recipe") -> Mapping[Any, Any]:
    """Return the mapping in a YAML file.

    Args:
        path: the file.
        kind: what the file is, for messages.

    Raises:
        UserError: the file can't be read, is not YAML, holds no mapping, or is beyond the limits of a recipe; the file
            is named.
    """
    content = _parsed(f"{kind} {path}", _text(path, kind))
    if not isinstance(content, Mapping):
        form = (
            "groups of settings; see recipes/sample.yaml for the form"
            if kind == "recipe"
            else "names with values"
        )
        raise UserError(f"{kind} {path} holds no {form}")
    try:
        check_plain(content, characters=_CHARACTERS)
    except UserError as error:
        raise UserError(f"{kind} {path} holds {error}; it is no {kind}") from None
    return content


def _text(path: str | Path, kind: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise UserError(f"{kind} {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > _LARGEST_FILE:
        raise UserError(f"{kind} {path} has more than {_LARGEST_FILE >> 10} KiB; it is no {kind}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{kind} {path} is not YAML: {error}") from None


def _parsed(name: str, text: str) -> object:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{name} is not YAML: {one_line(error)}") from None
    except (
        Exception
    ) as error:  # PyYAML raises nearly anything on a text that only looks like a number or a date
        raise UserError(f"{name} holds a value that can't be read: {one_line(error)}") from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without what makes a small file large, and without keys that are there twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node, and count the nodes below it with its aliases expanded."""
        is_alias, line = self.check_event(yaml.AliasEvent), self.peek_event().start_mark.line + 1
        self._level += 1
        if self._level > _DEEPEST:
            raise yaml.YAMLError(f"nested in more than {_DEEPEST} levels, line {line}")
        if len(self._sizes) > _NODES:
            raise yaml.YAMLError(f"more than {_NODES} values, line {line}")
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is None:
            return None
        if is_alias and node not in self._sizes:
            raise yaml.YAMLError(f"an alias of what it is part of, line {line}")
        if not is_alias:
            self._sizes[node] = 1 + sum(self._sizes[part] for part in _parts(node))
        if self._sizes[node] > _NODES:
            raise yaml.YAMLError(f"more than {_NODES} values, those of aliases included, line {line}")
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Compose a single value; converting a number of many digits would take seconds."""
        node = super().compose_scalar_node(anchor)
        if not node.tag.endswith(":str") and len(node.value) > _DIGITS:
            raise yaml.YAMLError(f"a number of {len(node.value)} characters, line {node.start_mark.line + 1}")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; a key that is there twice is an error."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key that is no text, line {key.start_mark.line + 1}")
            if key.value in seen and key.value != "<<":
                raise yaml.YAMLError(f"the key {key.value} twice, line {key.start_mark.line + 1}")
            seen.add(key.value)
        return node


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
