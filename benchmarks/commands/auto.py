"""`python -m benchmarks auto`."""

import argparse

from effnet.cli.arguments import MOST_IMAGES, MOST_PIXELS, integer, number, path
from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands
from effnet.cli.messages import shown_log


def add_auto(commands: Commands) -> None:
    """Add `python -m benchmarks auto`."""
    parser = commands.add_parser("auto", help="--engine auto beside every engine alone and torchvision")
    add = parser.add_argument
    add("--arch", "-a", type=path, default="efficientnet-b0", help="[default: efficientnet-b0]")
    add("--batch-sizes", nargs="+", type=integer(1, MOST_IMAGES), default=[1, 8], help="[default: 1 8]")
    add("--image-size", type=integer(32, MOST_PIXELS), metavar="PIXELS", help="[default: the model's]")
    add("--device", default="auto", choices=("auto", "cuda", "cpu"), help="[default: auto]")
    add("--rounds", type=integer(1, 1000), default=9, help="rounds [default: 9]")
    add("--seconds", type=number(3600), default=1.0, help="length of a turn [default: 1]")
    add("--eager-only", dest="compiled", action="store_false", help="without torch.compile")
    add_result_flags(parser, markdown="the tables")
    parser.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.auto import Plan, benchmark_auto, report

    names = ("arch", "batch_sizes", "image_size", "device", "rounds", "seconds", "compiled")
    with shown_log():
        result = benchmark_auto(Plan(**{name: getattr(namespace, name) for name in names}))
    text = report(result)
    return conclude(namespace, result, lambda _: print(text), markdown=text)
