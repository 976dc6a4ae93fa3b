"""The command line: `effnet <command>`. It parses arguments and prints results; the logic is in other packages."""

import os
import sys
from collections.abc import Sequence

# PyTorch takes seconds to import, so the modules of the command line import it only when a command runs.
from effnet.cli.messages import say_error, take_any_character
from effnet.runtime.disk import DISK_ERRORS, cannot_write
from effnet.runtime.errors import UserError
from effnet.runtime.memory import use_huge_pages
from effnet.runtime.signals import Interrupted


def main(argv: Sequence[str] | None = None, *, command: str | None = None, prog: str | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process if None.
        command: the command, for scripts that run one command only; by default the first argument.
        prog: program name for the help.

    Returns:
        Exit code: that of the command, 2 for bad input (reported in one line), 128 + N when ended by signal N.
    """
    from effnet.cli.commands import run

    use_huge_pages()
    take_any_character()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return run([command, *arguments] if command else arguments, prog=prog)
    except UserError as error:
        sys.stdout.flush()
        say_error(prog or "effnet", error)
        return 2
    except Interrupted as interrupted:
        sys.stdout.flush()
        say_error(prog or "effnet", interrupted, kind="")
        return interrupted.exit_code
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        say_error(prog or "effnet", cannot_write(error.filename or "a file", error))
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe. Without this Python would report an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
