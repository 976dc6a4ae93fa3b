"""The command line: `effnet <command>`. It parses arguments and prints results; the logic is in other packages."""

import os
import signal
import sys
from collections.abc import Sequence

# PyTorch takes seconds to import, so the modules of the command line import it only when a command runs.
from effnet.cli.messages import say_end, take_any_character
from effnet.runtime.children import exit_within, kill_children
from effnet.runtime.disk import DISK_ERRORS, cannot_write
from effnet.runtime.errors import ProcessLostError, UserError, one_line
from effnet.runtime.launcher import Ending, Launcher
from effnet.runtime.memory import use_huge_pages
from effnet.runtime.signals import HANDLED, Interrupted, Signals, handled_signals
from effnet.runtime.spinning import bound_spinning

BAD_INPUT = 2
PROCESS_LOST = 75
EXIT_S = 1.0
"""seconds for Python's own end after an error, which a thread that is stuck would hold up for ever"""


def main(argv: Sequence[str] | None = None, *, command: str | None = None, prog: str | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments without the program's name; those of the process if None.
        command: the command, for scripts that run one command only; by default the first argument.
        prog: program name for the help.

    Returns:
        Exit code: that of the command; 2 for bad input and 75 where another process of the run has ended, both reported
        in one line; 128 + N when ended by signal N.
    """
    use_huge_pages()
    bound_spinning()
    take_any_character()
    arguments = list(sys.argv[1:] if argv is None else argv)
    with handled_signals() as signals:
        code = _run([command, *arguments] if command else arguments, prog, signals)
    if signals.received is not None:
        for number in HANDLED:
            signal.signal(number, signal.SIG_IGN)  # so that a further one does not change the exit code
    return code


def _run(arguments: Sequence[str], prog: str | None, signals: Signals) -> int:
    """Run a command and return its exit code, also where it ends with an error that is no bug."""
    try:
        from effnet.cli.commands import run

        return run(arguments, prog=prog)
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe. Without this Python would report an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, Interrupted, KeyboardInterrupt) as error:
        ending = _ending(error, signals)
        if ending is None:
            raise
        return _end(ending, prog or "effnet", signals)


def _ending(error: BaseException, signals: Signals) -> Ending | None:
    """Return exit code and message of a command that ended with an error; None for a bug, which shows its traceback."""
    if isinstance(error, Interrupted):
        return Ending(error.exit_code, str(error))
    if signals.received is not None:
        # Foreign code may turn the interruption into an error of its own.
        return Ending(128 + signals.received, str(Interrupted(signals.received)))
    if isinstance(error, UserError):
        return Ending(BAD_INPUT, f"error: {error}")
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return Ending(BAD_INPUT, f"error: {cannot_write(error.filename or 'a file', error)}")
    if isinstance(error, ProcessLostError):
        return Ending(PROCESS_LOST, f"error: {error}")
    if isinstance(error, ImportError) and not (error.name or "").startswith("effnet"):
        doctor = f"{sys.executable} -m effnet.doctor says what is missing and what to do"
        return Ending(BAD_INPUT, f"error: {one_line(error)}; the installation is broken: {doctor}")
    if isinstance(error, KeyboardInterrupt):
        return Ending(128 + signal.SIGINT, str(Interrupted(signal.SIGINT)))
    return None


def _end(ending: Ending, prog: str, signals: Signals) -> int:
    """Report the end of a command and let nothing hold up that of the process; return the exit code."""
    # `torchrun` sends SIGTERM to the other processes as soon as one has ended, which may be now.
    signals.end()
    sys.stdout.flush()
    launcher, rank = Launcher.found(), int(os.environ.get("RANK", 0))
    told = launcher is not None and launcher.leave(Ending(ending.code, f"{prog}: {ending.message}"), rank)
    interrupted = ending.code in (128 + number for number in HANDLED)
    # A signal reaches all processes of a run.
    if not told and not (interrupted and rank):
        say_end(prog, ending.message)
    kill_children()
    exit_within(EXIT_S, ending.code)
    return ending.code
