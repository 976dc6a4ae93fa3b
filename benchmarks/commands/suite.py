"""`python -m benchmarks suite`."""

import argparse
from pathlib import Path

from effnet.cli.arguments import number
from effnet.cli.flags import Commands


def add_suite(commands: Commands) -> None:
    """Add `python -m benchmarks suite`."""
    suite = commands.add_parser("suite", help="the most useful benchmarks of this machine, one after another")
    suite.add_argument("--out", required=True, metavar="DIR", help="folder for JSON files and README.md")
    suite.add_argument("--minutes", type=number(10_000), default=8, help="time for all of them [default: 8]")
    suite.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.suite import run_suite

    outcomes = run_suite(Path(namespace.out), namespace.minutes)
    return int(all(outcome.failure for outcome in outcomes))
