"""`effnet export litert`."""

import argparse
from typing import TYPE_CHECKING

from effnet.cli.export.edge import add_edge_flags, edge_writer, export
from effnet.cli.export.form import Format

if TYPE_CHECKING:
    from effnet.export.writer import Writer


def _export(namespace: argparse.Namespace) -> int:
    from effnet.export.edge.litert import LITERT as FORM

    return export(namespace, FORM)


def _writer() -> "Writer":
    from effnet.export.edge.litert import LITERT as FORM

    return edge_writer(FORM)


LITERT = Format(
    "litert",
    "a .tflite file for LiteRT, compared with PyTorch after writing",
    add_edge_flags,
    _export,
    description="Write a file for LiteRT; its logits, in LiteRT's own runtime, must be PyTorch's. The converter is "
    "installed into the cache when it is first needed. A model of `effnet quantize --target litert` is written "
    "in integers.",
    writer=_writer,
)
