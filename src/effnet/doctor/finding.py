"""The result of a check."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "absent", "warning", "broken"]
"""``absent``: something optional is not installed; ``warning``: it works, but slower or with limits"""


@dataclass(frozen=True)
class Finding:
    """Result of a check.

    Attributes:
        name: what was checked, such as ``compiler``.
        status: how it is.
        text: what was found, on one line.
        remedy: what to do about it, on one line; empty where nothing is to do.
        facts: figures for programs, as plain values.
    """

    name: str
    status: Status
    text: str
    remedy: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain values, for JSON."""
        return asdict(self)
