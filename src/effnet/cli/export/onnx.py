"""`effnet export onnx`."""

import argparse
import typing
from typing import TYPE_CHECKING

from effnet.cli.choice import truth
from effnet.cli.export.form import Format
from effnet.cli.export.graph import (
    add_file_flags,
    add_graph_flags,
    file_options,
    graph_writer,
    opened,
    output_path,
)
from effnet.cli.flags import Parser
from effnet.cli.messages import say
from effnet.recipe.choices import OnnxTargetName

if TYPE_CHECKING:
    from effnet.export.writer import Writer


def _add_flags(parser: Parser) -> None:
    add_graph_flags(parser)
    add_file_flags(parser, "resize", "jpeg")
    parser.add_argument(
        "--target",
        default="onnxruntime",
        choices=typing.get_args(OnnxTargetName),
        help="engine to write for [default: onnxruntime]",
    )
    parser.add_argument(
        "--trt", nargs="?", const=True, type=truth, metavar="BOOL", help="the same as --target tensorrt"
    )


def _export(namespace: argparse.Namespace) -> int:
    from effnet.export.onnx import export_onnx

    model, metadata, options = opened(namespace)
    options |= file_options(namespace)
    options["target"] = "tensorrt" if namespace.trt else namespace.target
    say(export_onnx(model, metadata, output_path(namespace, metadata, ".onnx"), **options))
    return 0


def _writer() -> "Writer":
    from effnet.export.onnx import export_onnx

    return graph_writer(".onnx", export_onnx, "onnxruntime", "onnx", "onnxruntime")


ONNX = Format(
    "onnx", "an ONNX file, compared with PyTorch after writing", _add_flags, _export, writer=_writer
)
