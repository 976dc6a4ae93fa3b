"""`effnet export`: one module for each format.

A new format is a module of `effnet.export` that writes it, a module here with its flags, and its row in `FORMATS`.
"""

from effnet.cli.export.all import add_all
from effnet.cli.export.coreml import COREML
from effnet.cli.export.executorch import EXECUTORCH
from effnet.cli.export.litert import LITERT
from effnet.cli.export.ncnn import NCNN
from effnet.cli.export.onnx import ONNX
from effnet.cli.export.openvino import OPENVINO
from effnet.cli.export.tensorrt import TENSORRT
from effnet.cli.export.triton import TRITON
from effnet.cli.export.web import WEB
from effnet.cli.export.weights import WEIGHTS
from effnet.cli.flags import Commands, Parser

FORMATS = (WEIGHTS, ONNX, OPENVINO, TENSORRT, TRITON, WEB, LITERT, EXECUTORCH, COREML, NCNN)
"""the registry of formats"""


def add_export(commands: Commands, prog: str | None) -> None:
    """Add `effnet export`."""
    parser = commands.add_parser("export", prog=prog, help="write a model in another format")
    forms = parser.add_subparsers(metavar="FORM", required=True, parser_class=Parser)
    for row in FORMATS:
        form = forms.add_parser(row.name, help=row.summary, description=row.description)
        row.add_flags(form)
        form.set_defaults(command=row.run)
    add_all(forms, FORMATS)
