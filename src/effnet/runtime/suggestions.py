"""Suggestions for names that do not exist, as the end of a message."""

import difflib
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

_MOST_NAMES = 10_000


def suggested_path(path: Path | str) -> str:
    """Return ``; did you mean PATH?`` for a path that is not there, where one with a similar name is; else nothing.

    Args:
        path: a path whose first missing part is compared with the names beside it.
    """
    try:
        found = _similar(Path(path))
    except (OSError, ValueError):  # a name that no file can have, or a folder that may not be read
        return ""
    return "" if found is None else f"; did you mean {found}?"


def _similar(path: Path) -> Path | None:
    """Return the existing path that is most like a missing one; None where there is none."""
    missing = there = path
    while not there.exists():
        if there == there.parent:
            return None
        missing, there = there, there.parent
    if there == path:
        return None
    with os.scandir(there) as entries:
        names = [entry.name for entry in islice(entries, _MOST_NAMES)]
    candidates = (there / name / path.relative_to(missing) for name in _near(missing.name, names))
    return next((found for found in candidates if found.exists()), None)


def _near(name: str, known: Iterable[str]) -> list[str]:
    """Return similar names, the nearest first; upper and lower case are one."""
    folded: dict[str, str] = {}
    for other in known:
        folded.setdefault(other.lower(), other)
    return [folded[near] for near in difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.7)]


def suggested(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean NAME?`` for a name that is like a known one; else nothing."""
    near = _near(name, known)
    return f"; did you mean {near[0]}?" if near else ""
