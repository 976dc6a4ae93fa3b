"""`effnet push`."""

import argparse
from pathlib import Path

from effnet.cli.arguments import path
from effnet.cli.flags import Commands
from effnet.cli.messages import say
from effnet.runtime.progress import working


def add_push(commands: Commands, prog: str | None) -> None:
    """Add `effnet push`."""
    parser = commands.add_parser(
        "push",
        prog=prog,
        help="push a model to the Hugging Face hub",
        description="Push weights, configuration, model card and recipe to the Hugging Face hub; neither images nor "
        "the training's state. The token is HF_TOKEN or that of `hf auth login`.",
    )
    add = parser.add_argument
    add("source", type=path, metavar="RUN|FILE", help="folder of a run, a checkpoint, or weights")
    add("repository", type=path, metavar="OWNER/NAME", help="repository; made if it does not exist")
    add("--private", action="store_true", help="make the repository private")
    add("--message", type=path, metavar="TEXT", help="message of the commit")
    add("--licence", "--license", type=path, metavar="ID", help="licence of the weights, such as apache-2.0")
    add(
        "--ema",
        action=argparse.BooleanOptionalAction,
        help="push a checkpoint's averaged weights [default: the better ones in validation]",
    )
    add(
        "--dry-run",
        type=path,
        metavar="DIR",
        help="write the files into this folder instead, without a network",
    )
    parser.set_defaults(command=_push)


def _push(namespace: argparse.Namespace) -> int:
    from effnet.sharing.push import push, write_folder

    options = {"licence": namespace.licence, "ema": namespace.ema}
    if namespace.dry_run:
        folder = Path(namespace.dry_run)
        with working("writing the files"):
            write_folder(namespace.source, namespace.repository, folder, **options)
        for file in sorted(folder.iterdir()):
            say(f"{file}: {file.stat().st_size / 2**20:.2f} MiB")
    else:
        with working("pushing"):
            pushed = push(
                namespace.source,
                namespace.repository,
                private=namespace.private,
                message=namespace.message,
                **options,
            )
        say(pushed)
    return 0
