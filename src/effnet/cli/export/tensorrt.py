"""`effnet export tensorrt`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.cli.arguments import MOST_IMAGES, integer
from effnet.cli.export.form import Format
from effnet.cli.export.graph import add_graph_flags, opened, output_path
from effnet.cli.flags import Parser
from effnet.cli.messages import say

if TYPE_CHECKING:
    from effnet.export.writer import Order, Writer, Written

NOT_BUILT = 3
"""Exit code of `effnet export tensorrt` where it has prepared all but built no engine."""


def _add_flags(parser: Parser) -> None:
    add_graph_flags(parser, precision="fp16", static=False)
    parser.add_argument(
        "--max-batch-size",
        type=integer(1, MOST_IMAGES),
        default=256,
        metavar="IMAGES",
        help="largest batch [default: 256]",
    )


def _export(namespace: argparse.Namespace) -> int:
    from effnet.export.tensorrt import export_tensorrt

    model, metadata, options = opened(namespace)
    options |= {"batch_size": namespace.batch_size, "max_batch_size": namespace.max_batch_size}
    plan = export_tensorrt(model, metadata, output_path(namespace, metadata, ".engine"), **options)
    say(plan.onnx)
    if plan.built:
        say(f"{plan.path}: built")
        return 0
    say(
        "TensorRT or a GPU is missing here: no engine has been built. This command, which has not been run, does:"
    )
    say(plan.command)
    return NOT_BUILT


def _writer() -> "Writer":
    from effnet.export.tensorrt import export_tensorrt, why_none
    from effnet.export.writer import Writer, Written

    def write(order: "Order", path: Path) -> "Written":
        trained = order.trained
        plan = export_tensorrt(trained.model, trained.metadata, path, device=order.device)
        return Written(path, path.stat().st_size, plan.onnx.difference)

    return Writer(".engine", lambda _: why_none(), write, "tensorrt")


TENSORRT = Format(
    "tensorrt",
    "a TensorRT engine, or its ONNX file and the command that builds it",
    _add_flags,
    _export,
    description="Build a TensorRT engine. Without TensorRT or a GPU, write the ONNX file, print the trtexec "
    "command that builds the engine elsewhere, and end with exit code 3.",
    writer=_writer,
)
