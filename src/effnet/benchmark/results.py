"""Files of results."""

import json
from pathlib import Path
from typing import Any

from effnet.runtime.errors import UserError


def write(result: dict[str, Any], path: Path) -> None:
    """Write a result as JSON.

    Raises:
        UserError: the file can't be written.
    """
    _write(json.dumps(result, indent=1), path, "--json")


def write_text(text: str, path: Path) -> None:
    """Write Markdown.

    Raises:
        UserError: the file can't be written.
    """
    _write(f"{text}\n", path, "--markdown")


def _write(text: str, path: Path, flag: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{flag} {path}: {error.strerror}") from None
