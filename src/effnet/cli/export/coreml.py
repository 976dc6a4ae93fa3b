"""`effnet export coreml`."""

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
        default="fp16",
        type=str.lower,
        choices=("fp16", "fp32"),
        help="weights and arithmetic; Apple's Neural Engine computes in fp16 alone [default: fp16]",
    )
    parser.add_argument(
        "--no-install", action="store_true", help="fail if coremltools would have to be installed first"
    )


def _export(namespace: argparse.Namespace) -> int:
    from effnet.export.edge.coreml import SUFFIX, export_coreml
    from effnet.export.trained import open_trained
    from effnet.runtime.processes import choose_device

    choice = model_choice(namespace)
    trained = open_trained(choice)
    written = export_coreml(
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
    from effnet.export.edge.coreml import CONVERTER, SUFFIX, export_coreml
    from effnet.export.writer import Writer, Written

    def write(order: "Order", path: Path) -> "Written":
        written = export_coreml(order.trained.model, order.trained.metadata, path, device=order.device)
        return Written(path, written.size, written.difference)

    return Writer(SUFFIX, CONVERTER.missing, write)


COREML = Format(
    "coreml",
    "an .mlpackage for Core ML; its operators are compared with PyTorch, Core ML itself on a Mac",
    _add_flags,
    _export,
    description="Write a package for Core ML that takes an RGB image and returns logits. On a Mac, Core ML's logits "
    "must be PyTorch's. Elsewhere, those that the package's operators define must be, and Core ML itself does not run. "
    "coremltools is installed into the cache when it is first needed.",
    writer=_writer,
)
