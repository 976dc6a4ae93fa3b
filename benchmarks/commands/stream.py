"""`python -m benchmarks stream`."""

import argparse
from pathlib import Path

from effnet.cli.arguments import integer, path
from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands


def add_stream(commands: Commands) -> None:
    """Add `python -m benchmarks stream`."""
    parser = commands.add_parser("stream", help="many tiny images from an object store, with faults")
    add = parser.add_argument
    add("folder", metavar="DIR", type=path, help="folder for the set, 2.5 KB per image while it runs")
    add("--images", type=integer(5120, 10**8), default=10**6, help="images of the set [default: 1000000]")
    add("--processes", type=integer(1, 100), default=2, help="processes [default: 2]")
    add("--workers", type=integer(1, 100), default=2, help="workers of each process [default: 2]")
    add_result_flags(parser, markdown="the table")
    parser.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.stream import Plan, benchmark_stream, report

    plan = Plan(
        Path(namespace.folder),
        images=namespace.images,
        processes=namespace.processes,
        workers=namespace.workers,
    )
    result = benchmark_stream(plan)
    text = report(result)
    return conclude(namespace, result, lambda _: print(text), markdown=text)
