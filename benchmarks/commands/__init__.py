"""Command line of the laboratory: one module for each command."""

import sys
from collections.abc import Callable, Sequence

from benchmarks.commands.auto import add_auto
from benchmarks.commands.checkpoint import add_checkpoint
from benchmarks.commands.confidence import add_confidence
from benchmarks.commands.distill import add_distill
from benchmarks.commands.edge import add_edge
from benchmarks.commands.epoch import add_epoch
from benchmarks.commands.finetuning import add_finetuning
from benchmarks.commands.gpu_day import add_gpu_day
from benchmarks.commands.int8_accuracy import add_int8_accuracy
from benchmarks.commands.kernels import add_kernels
from benchmarks.commands.pairs import add_pairs
from benchmarks.commands.profile import add_profile
from benchmarks.commands.quantized_logits import add_quantized_logits
from benchmarks.commands.roofline import add_roofline
from benchmarks.commands.scaling import add_scaling
from benchmarks.commands.serve import add_serve
from benchmarks.commands.startup import add_startup
from benchmarks.commands.stream import add_stream
from benchmarks.commands.suite import add_suite
from benchmarks.commands.survival import add_survival
from benchmarks.commands.sync import add_sync
from benchmarks.commands.unbalanced import add_unbalanced
from effnet.cli.flags import Parser
from effnet.runtime.errors import UserError

PROG = "python -m benchmarks"
COMMANDS = {
    "auto": add_auto,
    "checkpoint": add_checkpoint,
    "confidence": add_confidence,
    "distill": add_distill,
    "edge": add_edge,
    "epoch": add_epoch,
    "finetuning": add_finetuning,
    "gpu-day": add_gpu_day,
    "int8-accuracy": add_int8_accuracy,
    "kernels": add_kernels,
    "pairs": add_pairs,
    "profile": add_profile,
    "quantized-logits": add_quantized_logits,
    "roofline": add_roofline,
    "scaling": add_scaling,
    "serve": add_serve,
    "startup": add_startup,
    "stream": add_stream,
    "suite": add_suite,
    "survival": add_survival,
    "sync": add_sync,
    "unbalanced": add_unbalanced,
}
"""name to the function that adds the command's parser"""


def build_parser() -> Parser:
    """Return the parser of all commands; a parsed namespace holds the command's function as `command`."""
    parser = Parser(prog=PROG, description="Benchmarks for the development of effnet.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for add in COMMANDS.values():
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process if None.

    Returns:
        Exit code: 0, 1 if nothing could be measured, 2 for bad input (reported in one line).
    """
    try:
        namespace = build_parser().parse_args(argv)
        command: Callable[..., int] = namespace.command
        return command(namespace)
    except UserError as error:
        sys.stdout.flush()
        print(f"{PROG}: error: {error}", file=sys.stderr)
        return 2
