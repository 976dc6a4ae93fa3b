"""What the package has to say while a verb runs."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def shown_log(level: int = logging.INFO) -> Iterator[None]:
    """Show what the package logs on standard error; of several processes the first says it for all.

    The logger is left as it was found: a program that runs a verb in its own process keeps its own logging.
    """
    logger = logging.getLogger("effnet")
    level_before = logger.level
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level_before)
