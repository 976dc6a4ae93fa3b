"""`effnet export openvino`."""

import argparse
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from effnet.export.writer import Writer


def _add_flags(parser: Parser) -> None:
    add_graph_flags(parser)
    add_file_flags(parser, "resize")


def _export(namespace: argparse.Namespace) -> int:
    from effnet.export.openvino import export_openvino

    model, metadata, options = opened(namespace)
    options |= file_options(namespace)
    say(export_openvino(model, metadata, output_path(namespace, metadata, ".xml"), **options))
    return 0


def _writer() -> "Writer":
    from effnet.export.openvino import export_openvino

    return graph_writer(".xml", export_openvino, "openvino", "onnx", "onnxruntime", "openvino")


OPENVINO = Format(
    "openvino",
    "OpenVINO's .xml and .bin, compared with PyTorch after writing",
    _add_flags,
    _export,
    writer=_writer,
)
