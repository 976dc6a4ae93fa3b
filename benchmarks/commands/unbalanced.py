"""`python -m benchmarks unbalanced`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Commands

KINDS = ("plain", "logit-adjustment", "class-weights", "balanced", "focal")


def add_unbalanced(commands: Commands) -> None:
    """Add `python -m benchmarks unbalanced`."""
    unbalanced = commands.add_parser("unbalanced", help="settings against unbalanced classes, beside none")
    unbalanced.add_argument("data", metavar="DIR", help="folder with train/<class>/ and val/<class>/")
    unbalanced.add_argument("--out", required=True, metavar="DIR", help="folder for runs and results")
    unbalanced.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="[default: all]")
    unbalanced.add_argument("--seeds", type=int, default=3, metavar="N", help="[default: 3]")
    unbalanced.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.unbalanced import Plan, benchmark_unbalanced, table

    plan = Plan(Path(namespace.data), Path(namespace.out), namespace.kinds, namespace.seeds)
    print(table(benchmark_unbalanced(plan)))
    return 0
