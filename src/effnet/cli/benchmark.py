"""`effnet benchmark`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Parser, Verbs, add_recipe_flags, given_settings
from effnet.recipe import Recipe


def add_benchmark(verbs: Verbs, prog: str | None) -> None:
    """Add `effnet benchmark`."""
    parser = verbs.add_parser("benchmark", prog=prog, help="measure speed beside other implementations")
    forms = parser.add_subparsers(metavar="WHAT", required=True, parser_class=Parser)
    train = forms.add_parser("train", help="training steps on synthetic images")
    train.add_argument("--json", metavar="FILE", help="write the result here")
    train.add_argument("--no-peers", dest="peers", action="store_false", help="this project alone")
    train.add_argument("--eager-only", dest="compiled", action="store_false", help="nothing compiled")
    train.add_argument(
        "--rounds", type=int, default=5, help="rounds, of which the median is taken [default: 5]"
    )
    train.add_argument("--steps", type=int, default=5, help="steps of each contender in a round [default: 5]")
    add_recipe_flags(train)
    train.set_defaults(verb=_benchmark_train)
    _add_benchmark_data(forms)


def _benchmark_train(namespace: argparse.Namespace) -> int:
    from effnet.benchmark.results import write
    from effnet.benchmark.train import TrainBenchmark, benchmark_train, print_table

    recipe = Recipe().replace(given_settings(namespace))
    result = benchmark_train(
        TrainBenchmark(
            recipe,
            peers=namespace.peers,
            compiled=namespace.compiled,
            rounds=namespace.rounds,
            steps=namespace.steps,
        )
    )
    print_table(result)
    if namespace.json:
        write(result, Path(namespace.json))
    return 0


def _add_benchmark_data(forms: Verbs) -> None:
    data = forms.add_parser("data", help="input pipelines on a folder of images")
    data.add_argument("dir", metavar="DIR", help="folder with train/<class>/, or with class folders")
    data.add_argument("--json", metavar="FILE", help="write the result here")
    data.add_argument("--image-size", type=int, default=224, metavar="PIXELS", help="[default: 224]")
    data.add_argument("-b", "--batch-size", type=int, default=64, metavar="IMAGES", help="[default: 64]")
    data.add_argument(
        "-j", "--workers", type=int, metavar="N", help="processes or threads [default: one a core]"
    )
    data.add_argument(
        "--repeats", type=int, default=5, help="rounds, of which the median is taken [default: 5]"
    )
    data.add_argument(
        "--images",
        type=int,
        default=2000,
        help="images in a round; the folder's are repeated or thinned out [default: 2000]",
    )
    data.add_argument(
        "--packed",
        action="append",
        default=[],
        metavar="OUT",
        help="packed set of the same images, may be repeated [default: they are packed into a temporary folder]",
    )
    data.add_argument(
        "--only", action="append", metavar="NAME", help="a contender to run, may be repeated [default: all]"
    )
    data.set_defaults(verb=_benchmark_data)


def _benchmark_data(namespace: argparse.Namespace) -> int:
    from effnet.benchmark.data import DataBenchmark, benchmark_data, print_table
    from effnet.benchmark.results import write

    settings = DataBenchmark(
        Path(namespace.dir),
        packed=[Path(out) for out in namespace.packed],
        images=namespace.images,
        image_size=namespace.image_size,
        batch_size=namespace.batch_size,
        workers=namespace.workers,
        repeats=namespace.repeats,
        only=namespace.only,
    )
    result = benchmark_data(settings)
    print_table(result)
    if namespace.json:
        write(result, Path(namespace.json))
    return 0
