"""`effnet benchmark train`."""

import argparse
from typing import Any

from effnet.cli.arguments import MOST_IMAGES, integer, number, path
from effnet.cli.benchmark.result import PRECISIONS, add_baselines_flag, add_result_flags, conclude
from effnet.cli.flags import Commands, add_recipe_flags, given_settings
from effnet.recipe import Recipe
from effnet.recipe.contradictions import FLAG, check_together


def add_train(forms: Commands) -> None:
    """Add `effnet benchmark train`."""
    train = forms.add_parser("train", help="training steps on synthetic images")
    add_result_flags(train, markdown="the table in the layout of NVIDIA's README")
    add_baselines_flag(train)
    train.add_argument("--eager-only", dest="compiled", action="store_false", help="without torch.compile")
    train.add_argument(
        "--rounds", type=integer(1, 1000), default=5, help="rounds, of which the median is taken [default: 5]"
    )
    train.add_argument(
        "--steps",
        type=integer(1, 10**6),
        default=5,
        help="steps of each implementation in a round [default: 5]",
    )
    train.add_argument(
        "--price-per-hour",
        type=number(1e9),
        metavar="PRICE",
        help="price of this machine for an hour, in any currency: show hours and cost of an epoch of ImageNet",
    )
    sweep = "measure all combinations of these [default: the value of {}]"
    train.add_argument("--archs", nargs="+", type=path, metavar="MODEL", help=sweep.format("--arch"))
    train.add_argument(
        "--batch-sizes",
        nargs="+",
        type=integer(1, MOST_IMAGES),
        metavar="IMAGES",
        help=sweep.format("--batch-size"),
    )
    train.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, metavar="NAME", help=sweep.format("--precision")
    )
    add_recipe_flags(train, without=("quantization",))
    train.set_defaults(command=_benchmark_train)


def _benchmark_train(namespace: argparse.Namespace) -> int:
    from effnet.benchmark.tables import training_table
    from effnet.benchmark.train import TrainBenchmark, benchmark_sweep, benchmark_train, print_table

    given = given_settings(namespace)
    recipe = Recipe().replace(given)
    check_together(recipe, dict.fromkeys(given, FLAG))
    settings = TrainBenchmark(
        recipe,
        baselines=namespace.baselines,
        compiled=namespace.compiled,
        price=namespace.price_per_hour,
        rounds=namespace.rounds,
        steps=namespace.steps,
    )
    swept = (namespace.archs, namespace.batch_sizes, namespace.precisions)
    if any(swept):
        result = benchmark_sweep(
            settings,
            namespace.archs or [recipe.model.arch],
            namespace.batch_sizes or [recipe.optimizer.batch_size or 64],
            namespace.precisions or [recipe.compute.precision],
        )
    else:
        result = benchmark_train(settings)
    runs = result.get("runs", [result])
    table = training_table(runs)

    def show(_: dict[str, Any]) -> None:
        for run in runs:
            print_table(run)
        if any(swept):
            print(table)

    return conclude(namespace, result, show, markdown=table)
