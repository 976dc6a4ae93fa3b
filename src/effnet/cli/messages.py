"""Display of the package's log messages while a command runs, and the form of an error message."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def shown_log(level: int = logging.INFO) -> Iterator[None]:
    """Show the package's log messages on standard error; of several processes only the first shows all of them.

    The logger is restored at the end, for programs that run a command in their own process.
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


def one_line(message: str) -> str:
    """Return a message on one line, with characters that a terminal would obey or can't show written as escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in message
    )
