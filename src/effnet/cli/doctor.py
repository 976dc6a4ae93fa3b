"""`effnet doctor`."""

import argparse
from pathlib import Path

from effnet.cli.arguments import path
from effnet.cli.flags import Commands


def add_doctor(commands: Commands, prog: str | None) -> None:
    """Add `effnet doctor`."""
    parser = commands.add_parser(
        "doctor",
        prog=prog,
        help="say what is broken, missing or slow here, and what to do about it",
        description="Look at versions, GPU and driver, packages, compiler, cores, memory, shared memory, cache, "
        "decoding and disk. Exit code: 0, or 1 where something is broken.",
    )
    parser.add_argument(
        "dir",
        type=path,
        nargs="?",
        metavar="DIR",
        help="folder of images: measure how fast they are read, instead of a file in the current folder",
    )
    parser.add_argument("--strict", action="store_true", help="end with exit code 1 for warnings too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(command=_doctor, needs_pytorch=False)


def _doctor(namespace: argparse.Namespace) -> int:
    from effnet.doctor.report import run

    folder = Path(namespace.dir) if namespace.dir is not None else None
    return run(folder, as_json=namespace.json, strict=namespace.strict)
