"""Output of a benchmark: a table on the terminal, and the files that its flags name."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from effnet.cli.arguments import path

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "amp")


def add_result_flags(parser: argparse.ArgumentParser, markdown: str | None = None) -> None:
    """Add `--json`, and `--markdown` if `markdown` names the content of that file."""
    parser.add_argument("--json", type=path, metavar="FILE", help="write the result here")
    if markdown is not None:
        parser.add_argument("--markdown", type=path, metavar="FILE", help=f"write {markdown} here")


def add_baselines_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--no-baselines`, and `--no-peers`, its name in earlier releases."""
    parser.add_argument(
        "--no-baselines",
        "--no-peers",
        dest="baselines",
        action="store_false",
        help="this project alone, without torchvision and timm",
    )


def conclude(
    namespace: argparse.Namespace,
    result: dict[str, Any],
    show: Callable[[dict[str, Any]], None],
    markdown: str | None = None,
) -> int:
    """Show a result and write it.

    Args:
        namespace: parsed flags of a parser with `add_result_flags`.
        result: content of the `--json` file.
        show: prints the result.
        markdown: content of the `--markdown` file.

    Returns:
        Exit code 0.

    Raises:
        UserError: a file can't be written.
    """
    from effnet.benchmark.results import write, write_text

    show(result)
    if namespace.json:
        write(result, Path(namespace.json))
    if markdown is not None and namespace.markdown:
        write_text(markdown, Path(namespace.markdown))
    return 0
