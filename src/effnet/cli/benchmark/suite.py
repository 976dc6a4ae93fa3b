"""`effnet benchmark suite`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Commands


def add_suite(forms: Commands) -> None:
    """Add `effnet benchmark suite`."""
    suite = forms.add_parser("suite", help="the benchmarks worth having of this machine, in one go")
    suite.add_argument("--out", required=True, metavar="DIR", help="folder for JSON files and README.md")
    suite.add_argument("--minutes", type=float, default=8, help="time for all of them [default: 8]")
    suite.set_defaults(command=_benchmark_suite)


def _benchmark_suite(namespace: argparse.Namespace) -> int:
    from effnet.benchmark.suite import run_suite

    outcomes = run_suite(Path(namespace.out), namespace.minutes)
    return int(all(outcome.failure for outcome in outcomes))
