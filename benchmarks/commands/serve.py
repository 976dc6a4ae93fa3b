"""`python -m benchmarks serve`."""

import argparse
from pathlib import Path

from effnet.cli.arguments import path
from effnet.cli.benchmark.result import add_result_flags, conclude
from effnet.cli.flags import Commands
from effnet.runtime.errors import UserError


def add_serve(commands: Commands) -> None:
    """Add `python -m benchmarks serve`."""
    parser = commands.add_parser("serve", help="effnet serve under load from wrk, with and without batches")
    add = parser.add_argument
    add("model", metavar="MODEL", help="as effnet serve takes it")
    add("photo", type=path, metavar="PHOTO", help="image file that clients send")
    add_result_flags(parser)
    add("--engine", nargs="+", default=["openvino", "onnxruntime"], help="[default: openvino onnxruntime]")
    add("--clients", nargs="+", type=int, default=[1, 8, 32], help="[default: 1 8 32]")
    add("--rounds", type=int, default=5, help="turns of each server [default: 5]")
    add("--seconds", type=int, default=8, help="of a turn [default: 8]")
    add("--requests", type=int, default=10_000, help="for the memory; 0 for none [default: 10000]")
    parser.set_defaults(command=_run)


def _run(namespace: argparse.Namespace) -> int:
    from benchmarks.serve import ServeBenchmark, benchmark_serve

    if min(namespace.rounds, namespace.seconds, *namespace.clients) < 1 or namespace.requests < 0:
        raise UserError("--clients, --rounds and --seconds must be at least 1, --requests at least 0")
    photo = Path(namespace.photo)
    if not photo.is_file():
        raise UserError(f"{photo}: no such file")
    settings = ServeBenchmark(
        namespace.model,
        photo,
        tuple(namespace.engine),
        tuple(namespace.clients),
        namespace.rounds,
        namespace.seconds,
        namespace.requests,
    )
    return conclude(namespace, benchmark_serve(settings), lambda result: None)  # printed row by row
