"""`python -m benchmarks sync`."""

import argparse

from effnet.cli.arguments import integer
from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands


def add_sync(commands: Commands) -> None:
    """Add `python -m benchmarks sync`."""
    parser = commands.add_parser("sync", help="many processes on these cores, measured and predicted")
    add = parser.add_argument
    add(
        "--processes",
        type=integer(2, 256),
        nargs="+",
        default=[2, 4, 8, 16],
        metavar="N",
        help="numbers of processes; the smallest predicts the others [default: 2 4 8 16]",
    )
    add("--arch", default="efficientnet-b0", metavar="MODEL", help="[default: efficientnet-b0]")
    add("--image-size", type=integer(8, 1024), default=32, metavar="PIXELS", help="[default: 32]")
    add(
        "--batch-size",
        type=integer(2, 4096),
        default=8,
        metavar="IMAGES",
        help="of each process [default: 8]",
    )
    add("--rounds", type=integer(1, 1000), default=15, help="rounds of each measurement [default: 15]")
    add_result_flags(parser, markdown="the table")
    parser.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.sync import Plan, benchmark_sync, report

    plan = Plan(
        processes=sorted(set(namespace.processes)),
        arch=namespace.arch,
        image_size=namespace.image_size,
        batch_size=namespace.batch_size,
        rounds=namespace.rounds,
    )
    result = benchmark_sync(plan)
    text = report(result)
    print("measured / predicted from the first row")
    return conclude(namespace, result, lambda _: print(text), markdown=text)
