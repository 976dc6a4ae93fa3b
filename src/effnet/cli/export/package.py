"""Formats that are folders with a network which takes one RGB image: flags, export, and part of `effnet export all`."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effnet.cli.choice import add_model_flags, model_choice
from effnet.cli.export.form import Format
from effnet.cli.export.graph import add_output_flag, output_path
from effnet.cli.flags import Parser
from effnet.cli.messages import say

if TYPE_CHECKING:
    from effnet.export.edge.environment import Converter
    from effnet.export.writer import Order, Writer, Written


@dataclass(frozen=True)
class PackageExport:
    """Parts of a format's module in `effnet.export.edge`.

    Attributes:
        suffix: of its folders.
        converter: what it needs.
        export: writes a folder; returns what it wrote, with its `size` and `difference`.
    """

    suffix: str
    converter: "Converter"
    export: Callable[..., Any]


def package_format(
    name: str,
    summary: str,
    *,
    description: str,
    default: str,
    precision_help: str,
    installs: str,
    load: Callable[[], PackageExport],
) -> Format:
    """Return a format.

    Args:
        name: of the command.
        summary: line in `effnet export --help`.
        description: of the command.
        default: of `--precision`, which takes ``fp16`` and ``fp32``.
        precision_help: of that flag.
        installs: what `--no-install` leaves out.
        load: imports the format's module, which needs PyTorch.
    """

    def add_flags(parser: Parser) -> None:
        add_model_flags(parser)
        add_output_flag(parser)
        parser.add_argument(
            "--precision",
            default=default,
            type=str.lower,
            choices=("fp16", "fp32"),
            help=f"{precision_help} [default: {default}]",
        )
        parser.add_argument(
            "--no-install", action="store_true", help=f"fail if {installs} would have to be installed first"
        )

    return Format(
        name,
        summary,
        add_flags,
        partial(_export, load),
        description=description,
        writer=partial(_writer, load),
    )


def _export(load: Callable[[], PackageExport], namespace: argparse.Namespace) -> int:
    from effnet.export.trained import open_trained
    from effnet.runtime.processes import choose_device

    form = load()
    choice = model_choice(namespace)
    trained = open_trained(choice)
    written = form.export(
        trained.model,
        trained.metadata,
        output_path(namespace, trained.metadata, form.suffix),
        precision=namespace.precision,
        device=choose_device(choice.device),
        install=not namespace.no_install,
    )
    say(written)
    return 0


def _writer(load: Callable[[], PackageExport]) -> "Writer":
    from effnet.export.writer import Writer, Written

    form = load()

    def write(order: "Order", path: Path) -> "Written":
        written = form.export(order.trained.model, order.trained.metadata, path, device=order.device)
        return Written(path, written.size, written.difference)

    return Writer(form.suffix, form.converter.missing, write)
