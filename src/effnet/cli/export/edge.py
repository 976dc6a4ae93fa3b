"""Flags of the formats for phones and small devices, and the export that they stand for."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.cli.arguments import MOST_IMAGES, integer
from effnet.cli.choice import add_model_flags, model_choice
from effnet.cli.export.graph import add_bytes_flag, add_output_flag, output_path
from effnet.cli.flags import Parser
from effnet.cli.messages import say

if TYPE_CHECKING:
    from effnet.export.edge.formats import EdgeFormat
    from effnet.export.writer import Order, Writer, Written


def add_edge_flags(parser: Parser) -> None:
    """Add the flags that all these formats have."""
    add_model_flags(parser)
    add = parser.add_argument
    add_output_flag(parser)
    add_bytes_flag(parser)
    add(
        "-b",
        "--batch-size",
        type=integer(1, MOST_IMAGES),
        default=1,
        metavar="IMAGES",
        help="number of images that the file takes [default: 1]",
    )
    add("--no-install", action="store_true", help="fail if the converter would have to be installed first")


def export(namespace: argparse.Namespace, form: "EdgeFormat") -> int:
    """Write a file of a format; return the exit code."""
    from effnet.export.edge.formats import export_edge
    from effnet.export.trained import open_trained
    from effnet.runtime.processes import choose_device

    choice = model_choice(namespace)
    trained = open_trained(choice)
    written = export_edge(
        form,
        trained.model,
        trained.metadata,
        output_path(namespace, trained.metadata, form.suffix),
        batch_size=namespace.batch_size,
        preprocessing_in_graph=namespace.uint8_input,
        device=choose_device(choice.device),
        install=not namespace.no_install,
    )
    say(written)
    return 0


def edge_writer(form: "EdgeFormat") -> "Writer":
    """Return a format's part of `effnet export all`: it takes part once its converter is in the cache."""
    from effnet.export.edge.formats import export_edge, run_edge
    from effnet.export.writer import Writer, Written

    def write(order: "Order", path: Path) -> "Written":
        trained = order.trained
        written = export_edge(form, trained.model, trained.metadata, path, device=order.device)
        return Written(path, written.size, written.difference)

    return Writer(form.suffix, form.converter.missing, write, run=partial(run_edge, form))
