"""`effnet export ncnn`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.cli.choice import add_model_flags, model_choice
from effnet.cli.export.form import Format
from effnet.cli.export.graph import add_output_flag, output_path
from effnet.cli.flags import Parser
from effnet.cli.messages import say

if TYPE_CHECKING:
    from effnet.export.writer import Order, Writer, Written


def _add_flags(parser: Parser) -> None:
    add_model_flags(parser)
    add_output_flag(parser)
    parser.add_argument(
        "--precision",
        default="fp32",
        type=str.lower,
        choices=("fp16", "fp32"),
        help="the weights; fp16 halves the size [default: fp32]",
    )
    parser.add_argument(
        "--no-install", action="store_true", help="fail if ncnn would have to be installed first"
    )


def _export(namespace: argparse.Namespace) -> int:
    from effnet.export.edge.ncnn import SUFFIX, export_ncnn
    from effnet.export.trained import open_trained
    from effnet.runtime.processes import choose_device

    choice = model_choice(namespace)
    trained = open_trained(choice)
    written = export_ncnn(
        trained.model,
        trained.metadata,
        output_path(namespace, trained.metadata, SUFFIX),
        precision=namespace.precision,
        device=choose_device(choice.device),
        install=not namespace.no_install,
    )
    say(written)
    return 0


def _writer() -> "Writer":
    from effnet.export.edge.ncnn import CONVERTER, SUFFIX, export_ncnn
    from effnet.export.writer import Writer, Written

    def write(order: "Order", path: Path) -> "Written":
        written = export_ncnn(order.trained.model, order.trained.metadata, path, device=order.device)
        return Written(path, written.size, written.difference)

    return Writer(SUFFIX, CONVERTER.missing, write)


NCNN = Format(
    "ncnn",
    "a folder for ncnn, which runs on phones and small boards",
    _add_flags,
    _export,
    description="Write a network for ncnn that takes an RGB image and returns logits; ncnn's logits must be PyTorch's. "
    "ncnn and its converter pnnx are installed into the cache when they are first needed.",
    writer=_writer,
)
