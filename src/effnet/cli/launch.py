"""NVIDIA's `launch.py`: run the recipe of a model, precision, platform and mode by `effnet train` or `quantize`."""

from collections.abc import Sequence
from pathlib import Path

from effnet.cli import main
from effnet.cli.arguments import path
from effnet.cli.flags import Parser
from effnet.cli.messages import say_error
from effnet.recipe.catalog import DEFAULT_MODE, names, published
from effnet.recipe.cfg_file import configured
from effnet.runtime.errors import UserError

PROG = "launch.py"


def launch(argv: Sequence[str]) -> int:
    """Run a published recipe and return the exit code.

    Args:
        argv: `--model`, `--precision`, `--platform`, optionally `--mode` and `--cfg-file`, and arguments of
            `effnet train`.
    """
    parser = Parser(
        prog=PROG,
        usage=f"{PROG} --model M --precision P --platform PL [--mode MODE] [--cfg-file FILE] DIR "
        "[options of `effnet train`]",
        description="Run a published recipe; `effnet train --help` lists the flags that override its settings.",
    )
    for flag, required in (("model", True), ("precision", True), ("platform", True), ("mode", False)):
        default = None if required else DEFAULT_MODE
        parser.add_argument(
            f"--{flag}", required=required, default=default, metavar="NAME", help=", ".join(names(f"{flag}s"))
        )
    parser.add_argument(
        "--cfg-file",
        type=path,
        metavar="FILE",
        help="recipes in the format of NVIDIA's launch.py [default: the published ones]",
    )
    try:
        named, rest = parser.parse_known_args(argv)
        parts = (named.model, named.platform, named.precision, named.mode)
        recipe = configured(Path(named.cfg_file), "/".join(parts)) if named.cfg_file else published(*parts)
    except UserError as error:
        say_error(PROG, error)
        return 2
    source = ["--cfg-file", named.cfg_file] if named.cfg_file else []
    return main([*rest, *source, "--recipe", recipe.name], command=recipe.command, prog=PROG)
