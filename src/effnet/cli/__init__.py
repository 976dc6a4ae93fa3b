"""The command line: `effnet <verb>`. It parses, calls and prints; the logic is in the packages it calls."""

import os
import sys
from collections.abc import Sequence

# PyTorch takes seconds to import, so nothing here does before a verb asks for it.
from effnet.runtime.errors import UserError
from effnet.runtime.memory import use_huge_pages


def main(argv: Sequence[str] | None = None, *, verb: str | None = None, prog: str | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process if None.
        verb: the verb, for scripts whose name stands for it; otherwise the first argument.
        prog: name to show in help.

    Returns:
        Exit code: 0, 2 for bad input (told in one line), 130 when interrupted.
    """
    from effnet.cli.verbs import run

    use_huge_pages()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return run([verb, *arguments] if verb else arguments, prog=prog)
    except UserError as error:
        sys.stdout.flush()
        print(f"{prog or 'effnet'}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has gone; so that Python does not complain at exit as well:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
