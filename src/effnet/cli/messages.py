"""What the package has to say while a verb runs."""

import logging
import os


def show_log(level: int = logging.INFO) -> None:
    """Show what the package logs on standard error; of several processes the first says it for all."""
    logger = logging.getLogger("effnet")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(level if os.environ.get("RANK", "0") == "0" else logging.ERROR)
