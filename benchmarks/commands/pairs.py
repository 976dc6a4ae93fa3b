"""`python -m benchmarks pairs`."""

import argparse
import json
from pathlib import Path

from effnet.cli.flags import Commands


def add_pairs(commands: Commands) -> None:
    """Add `python -m benchmarks pairs`."""
    pairs = commands.add_parser(
        "pairs", help="several labels: photographs in pairs, from training to an exported file"
    )
    pairs.add_argument("data", metavar="DIR", help="folder with val/<class>/")
    pairs.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the pairs, the run and the result"
    )
    pairs.add_argument("--pairs", type=int, default=2000, metavar="N", help="[default: 2000]")
    pairs.add_argument("--epochs", type=int, default=6, metavar="N", help="[default: 6]")
    pairs.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.pairs import Plan, benchmark_pairs

    plan = Plan(Path(namespace.data), Path(namespace.out), namespace.pairs, epochs=namespace.epochs)
    print(json.dumps(benchmark_pairs(plan), indent=1))
    return 0
