"""`python -m benchmarks edge`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Commands

MODELS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")


def add_edge(commands: Commands) -> None:
    """Add `python -m benchmarks edge`."""
    edge = commands.add_parser("edge", help="LiteRT's and ExecuTorch's files: size, agreement, latency")
    edge.add_argument("data", metavar="DIR", help="folder with val/<wnid>/ and wnids.txt")
    edge.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    edge.add_argument("--model", choices=MODELS, default=MODELS[0], help=f"[default: {MODELS[0]}]")
    edge.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.edge import measure_missing, table

    print(table(measure_missing(Path(namespace.data), Path(namespace.out), namespace.model)))
    return 0
