"""Files of results."""

from pathlib import Path
from typing import Any

from effnet.runtime.files import write_text as write_file
from effnet.runtime.text import to_json


def write(result: dict[str, Any], path: Path) -> None:
    """Write a result as JSON.

    Raises:
        UserError: the file can't be written.
    """
    write_file(path, to_json(result, indent=1))


def write_text(text: str, path: Path) -> None:
    """Write Markdown.

    Raises:
        UserError: the file can't be written.
    """
    write_file(path, f"{text}\n")
