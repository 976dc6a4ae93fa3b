"""`effnet benchmark data`."""

import argparse
from pathlib import Path

from effnet.cli.arguments import MOST_IMAGES, MOST_PIXELS, MOST_WORKERS, integer, path
from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands
from effnet.cli.sources import DATA_HELP, add_source_flags, source_recipe


def add_data(forms: Commands) -> None:
    """Add `effnet benchmark data`."""
    data = forms.add_parser("data", help="input pipelines on the images of a data source")
    data.add_argument("dir", type=path, metavar="DIR", help=DATA_HELP)
    add_result_flags(data)
    data.add_argument(
        "--image-size", type=integer(32, MOST_PIXELS), default=224, metavar="PIXELS", help="[default: 224]"
    )
    data.add_argument(
        "-b", "--batch-size", type=integer(1, MOST_IMAGES), default=64, metavar="IMAGES", help="[default: 64]"
    )
    data.add_argument(
        "-j",
        "--workers",
        type=integer(0, MOST_WORKERS),
        metavar="N",
        help="processes or threads [default: one per core]",
    )
    data.add_argument(
        "--repeats",
        type=integer(1, 1000),
        default=5,
        help="rounds, of which the median is taken [default: 5]",
    )
    data.add_argument(
        "--images",
        type=integer(1, 10**7),
        default=2000,
        help="images in a round; the folder's are repeated or subsampled to about as many [default: 2000]",
    )
    data.add_argument(
        "--packed",
        action="append",
        default=[],
        type=path,
        metavar="OUT",
        help="packed set of the same images, may be repeated [default: they are packed into a temporary folder]",
    )
    data.add_argument(
        "--only",
        action="append",
        type=path,
        metavar="NAME",
        help="a pipeline to run, may be repeated [default: all]",
    )
    add_source_flags(data)
    data.set_defaults(command=_benchmark_data)


def _benchmark_data(namespace: argparse.Namespace) -> int:
    from effnet.benchmark.data import DataBenchmark, benchmark_data, print_table

    settings = DataBenchmark(
        Path(namespace.dir),
        packed=[Path(out) for out in namespace.packed],
        images=namespace.images,
        image_size=namespace.image_size,
        batch_size=namespace.batch_size,
        workers=namespace.workers,
        repeats=namespace.repeats,
        only=namespace.only,
        source=source_recipe(namespace),
    )
    result = benchmark_data(settings)
    return conclude(namespace, result, print_table)
