"""`effnet export all`."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from effnet.cli.arguments import path
from effnet.cli.choice import add_model_flags, model_choice
from effnet.cli.export.form import Format
from effnet.cli.flags import Commands
from effnet.cli.messages import say

NOT_WRITTEN = 1
"""Exit code of `effnet export all` where a format could be written here, but was refused."""


def add_all(forms: Commands, formats: Sequence[Format]) -> None:
    """Add `effnet export all` for the formats that take part in it."""
    parser = forms.add_parser(
        "all",
        help="every format whose packages are installed, and a table of them",
        description="Write a model in every format whose packages are installed, each only if its answers are "
        "PyTorch's. Name the formats left out and why, run each file, and print size, milliseconds of an image, "
        "largest difference of a logit from PyTorch's, and number of images with PyTorch's answer; DIR/formats.json "
        "holds the same. Exit code 1: a format was refused; the others are written.",
    )
    parser.add_argument("folder", type=path, metavar="DIR", help="folder to write into")
    add_model_flags(parser)
    parser.add_argument(
        "--install",
        action="store_true",
        help="first put what converters and the browser need into the cache, up to 1.1 GB",
    )
    parser.set_defaults(command=partial(_export, formats=formats))


def _export(namespace: argparse.Namespace, *, formats: Sequence[Format]) -> int:
    from effnet.benchmark.formats import export_formats, lines
    from effnet.export.trained import open_trained
    from effnet.export.writer import Order
    from effnet.runtime.processes import choose_device

    choice = model_choice(namespace)
    order = Order(choice, open_trained(choice), choose_device(choice.device), namespace.install)
    writers = {row.name: row.writer() for row in formats if row.writer is not None}
    result = export_formats(writers, order, Path(namespace.folder))
    for line in lines(result):
        say(line)
    return NOT_WRITTEN if any(row["error"] for row in result["rows"]) else 0
