"""`effnet export executorch`."""

import argparse
from typing import TYPE_CHECKING

from effnet.cli.export.edge import add_edge_flags, edge_writer, export
from effnet.cli.export.form import Format

if TYPE_CHECKING:
    from effnet.export.writer import Writer


def _export(namespace: argparse.Namespace) -> int:
    from effnet.export.edge.executorch import EXECUTORCH as FORM

    return export(namespace, FORM)


def _writer() -> "Writer":
    from effnet.export.edge.executorch import EXECUTORCH as FORM

    return edge_writer(FORM)


EXECUTORCH = Format(
    "executorch",
    "a .pte file for ExecuTorch on XNNPACK, compared with PyTorch after writing",
    add_edge_flags,
    _export,
    description="Write a file for ExecuTorch; its logits, in ExecuTorch's own runtime, must be PyTorch's. The "
    "converter is installed into the cache when it is first needed. A model of `effnet quantize --target executorch` "
    "is written in integers.",
    writer=_writer,
)
