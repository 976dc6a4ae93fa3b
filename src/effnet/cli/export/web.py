"""`effnet export web`."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from effnet.cli.arguments import path
from effnet.cli.choice import add_model_flags, model_choice
from effnet.cli.export.form import Format
from effnet.cli.flags import Parser
from effnet.cli.messages import say

if TYPE_CHECKING:
    from effnet.export.writer import Order, Writer, Written


def _add_flags(parser: Parser) -> None:
    add = parser.add_argument
    add("folder", type=path, metavar="DIR", help="folder to write; must be empty if it exists")
    add_model_flags(parser)
    add(
        "--also",
        action="append",
        default=[],
        type=path,
        metavar="FILE",
        help="one more model on the page, such as the INT8 one: weights, a checkpoint or an .onnx file; again for more",
    )
    add(
        "--runtime",
        type=path,
        metavar="PATH",
        help="npm package of onnxruntime-web, folder or .tgz file [default: downloaded by npm, and kept]",
    )
    add("--no-webgpu", action="store_true", help="leave out the runtime for WebGPU, 27 MB")


def _export(namespace: argparse.Namespace) -> int:
    from effnet.export.web import export_web

    first = model_choice(namespace)
    others = [replace(first, arch=None, publisher=None, weights=Path(file)) for file in namespace.also]
    runtime = Path(namespace.runtime) if namespace.runtime else None
    written = export_web(
        [first, *others], Path(namespace.folder), runtime=runtime, webgpu=not namespace.no_webgpu
    )
    for line in written.lines():
        say(line)
    say(f"open it: python -m http.server --directory {namespace.folder} --bind 127.0.0.1 8000")
    return 0


def _writer() -> "Writer":
    from effnet.export.packages import missing_package
    from effnet.export.web import export_web
    from effnet.export.web.runtime import why_none
    from effnet.export.writer import Writer, Written

    def missing(install: bool) -> str | None:
        return missing_package("onnx", "onnxruntime") or why_none(install)

    def write(order: "Order", path: Path) -> "Written":
        written = export_web([order.choice], path)
        return Written(path, written.size, written.differences[0] if written.differences else None)

    return Writer("", missing, write)


WEB = Format(
    "web",
    "a folder of static files that classifies photographs in a browser",
    _add_flags,
    _export,
    description="Write a page that classifies photographs in the browser that opens it: the models, onnxruntime-web "
    "beside them, and no server code. `--pretrained-from-file` also takes a file of `effnet export onnx`.",
    writer=_writer,
)
