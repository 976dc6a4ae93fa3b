"""What every benchmark does with its result: it is shown, and written where a flag says."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add_result_flags(parser: argparse.ArgumentParser, markdown: str | None = None) -> None:
    """Add `--json`, and `--markdown` where its help, what is written there, is given."""
    parser.add_argument("--json", metavar="FILE", help="write the result here")
    if markdown is not None:
        parser.add_argument("--markdown", metavar="FILE", help=f"write {markdown} here")


def conclude(
    namespace: argparse.Namespace,
    result: dict[str, Any],
    show: Callable[[dict[str, Any]], None],
    markdown: str | None = None,
) -> int:
    """Show a result and write it; gives the exit code.

    Args:
        namespace: parsed flags of a parser with `add_result_flags`.
        result: what `--json` is to hold.
        show: shows it to people.
        markdown: what `--markdown` is to hold.

    Raises:
        UserError: a file that can't be written.
    """
    from effnet.benchmark.results import write, write_text

    show(result)
    if namespace.json:
        write(result, Path(namespace.json))
    if markdown is not None and namespace.markdown:
        write_text(markdown, Path(namespace.markdown))
    return 0
