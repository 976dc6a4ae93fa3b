"""The verbs of `effnet`."""

import argparse
from collections.abc import Callable, Sequence

from effnet.cli.benchmark import add_benchmark
from effnet.cli.classify import add_classify
from effnet.cli.export import add_export
from effnet.cli.flags import Parser
from effnet.cli.models import add_models
from effnet.cli.prepare import add_prepare
from effnet.cli.quantize import add_quantize
from effnet.cli.train import add_evaluate, add_train

Verb = Callable[[argparse.Namespace], int]

VERBS = (
    add_train,
    add_evaluate,
    add_quantize,
    add_classify,
    add_export,
    add_prepare,
    add_models,
    add_benchmark,
)


def parser_of_verbs(prog: str | None = None) -> Parser:
    """The parser of all verbs.

    Args:
        prog: name to show in a verb's help, for scripts that stand for it.
    """
    parser = Parser(prog="effnet", description="Train, quantize and deploy EfficientNet image classifiers.")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=Parser)
    for add in VERBS:
        add(verbs, prog)
    return parser


def run(argv: Sequence[str], prog: str | None = None) -> int:
    """Parse and run; gives the exit code.

    Args:
        argv: the verb and its arguments.
        prog: as in `parser_of_verbs`.
    """
    namespace = parser_of_verbs(prog).parse_args(argv)
    verb: Verb = namespace.verb
    return verb(namespace)
