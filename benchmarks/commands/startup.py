"""`python -m benchmarks startup`."""

import argparse
from pathlib import Path

from effnet.cli.arguments import integer, path
from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands


def add_startup(commands: Commands) -> None:
    """Add `python -m benchmarks startup`."""
    parser = commands.add_parser(
        "startup", help="time from a command to its end or its first step, and peak memory of every command"
    )
    add = parser.add_argument
    add("photo", type=path, help="photograph to classify, with weights that are on this machine")
    add("--rounds", type=integer(1, 1000), default=9, help="times that each process runs [default: 9]")
    add(
        "--photographs",
        type=integer(1, 10**6),
        default=1000,
        metavar="N",
        help="copies of the photograph for the larger classification [default: 1000]",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--times-only", dest="memory", action="store_false", help="without the peak memory")
    only.add_argument("--memory-only", dest="times", action="store_false", help="without the times")
    add_result_flags(parser, markdown="the tables")
    parser.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.startup import Plan, benchmark_startup, report

    plan = Plan(
        Path(namespace.photo),
        rounds=namespace.rounds,
        many=namespace.photographs,
        times=namespace.times,
        memory=namespace.memory,
    )
    result = benchmark_startup(plan)
    text = report(result)
    return conclude(namespace, result, lambda _: print(text), markdown=text)
