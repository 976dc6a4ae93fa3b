"""`effnet benchmark train`."""

import argparse
from pathlib import Path

from effnet.cli.flags import Verbs, add_recipe_flags, given_settings
from effnet.recipe import Recipe


def add_train(forms: Verbs) -> None:
    """Add `effnet benchmark train`."""
    train = forms.add_parser("train", help="training steps on synthetic images")
    train.add_argument("--json", metavar="FILE", help="write the result here")
    train.add_argument("--no-peers", dest="peers", action="store_false", help="this project alone")
    train.add_argument("--eager-only", dest="compiled", action="store_false", help="nothing compiled")
    train.add_argument(
        "--rounds", type=int, default=5, help="rounds, of which the median is taken [default: 5]"
    )
    train.add_argument("--steps", type=int, default=5, help="steps of each contender in a round [default: 5]")
    add_recipe_flags(train, without=("quantization",))
    train.set_defaults(verb=_benchmark_train)


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
