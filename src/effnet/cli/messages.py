"""Output of a command: its lines, its error, and the log messages of the package while it runs."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from effnet.runtime.text import printable


def say(line: object) -> None:
    """Print a line on standard output, in which what a terminal would obey is escaped."""
    print(printable(line))


def say_error(prog: str, error: object) -> None:
    """Print the one line of a command's error."""
    say_end(prog, f"error: {error}")


def say_end(prog: str, message: str) -> None:
    """Print the one line with which a command ends, on standard error."""
    print(f"{prog}: {printable(message)}", file=sys.stderr)


def take_any_character() -> None:
    """Let standard output escape characters that its encoding lacks, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return printable(super().formatMessage(record))


@contextmanager
def shown_log(level: int = logging.INFO) -> Iterator[None]:
    """Show the package's log messages on standard error; of several processes only the first shows all of them.

    The logger is restored at the end, for programs that run a command in their own process.
    """
    logger = logging.getLogger("effnet")
    level_before = logger.level
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level_before)
