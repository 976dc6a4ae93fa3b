"""Files of results."""

import json
from pathlib import Path
from typing import Any

from effnet.runtime.files import write_text as write_file


def write(result: dict[str, Any], path: Path) -> None:
    """Write a result as JSON.

    Raises:
        UserError: the file can't be written.
    """
    write_file(path, json.dumps(result, indent=1))


def write_text(text: str, path: Path) -> None:
    """Write Markdown.

    Raises:
        UserError: the file can't be written.
    """
    write_file(path, f"{text}\n")
