"""Results as files."""

import json
from pathlib import Path
from typing import Any

from effnet.errors import UserError


def write(result: dict[str, Any], path: Path) -> None:
    """Write as JSON.

    Raises:
        UserError: the file can't be written.
    """
    try:
        path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {path}: {error.strerror}") from None
