"""`effnet export openvino`."""

import argparse

from effnet.cli.export.form import Format
from effnet.cli.export.graph import add_graph_flags, opened, output_path
from effnet.cli.messages import say


def _export(namespace: argparse.Namespace) -> int:
    from effnet.export.openvino import export_openvino

    model, metadata, options = opened(namespace)
    say(export_openvino(model, metadata, output_path(namespace, metadata, ".xml"), **options))
    return 0


OPENVINO = Format(
    "openvino",
    "OpenVINO's .xml and .bin, compared with PyTorch after writing",
    add_graph_flags,
    _export,
)
