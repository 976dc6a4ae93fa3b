"""NVIDIA's `multiproc.py`: `torchrun` with defaults for one machine."""

import argparse
import logging
import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from effnet.cli import BAD_INPUT, EXIT_S, PROCESS_LOST
from effnet.runtime.children import exit_within
from effnet.runtime.launcher import Launcher
from effnet.runtime.signals import HANDLED, Interrupted, handled_signals

PROG = "multiproc.py"
# Flags for the rendezvous of processes on several machines.
_MEETING_FLAGS = ("--nnodes", "--master-addr", "--master-port", "--rdzv-backend", "--rdzv-endpoint")
_ELASTIC = "torch.distributed.elastic"
_INTERRUPTED = {128 + number for number in HANDLED}
# Ends that follow from the end of another process, after which torchrun sends SIGTERM.
_CONSEQUENCES = {PROCESS_LOST, -signal.SIGTERM, *_INTERRUPTED}


def multiproc(argv: Sequence[str]) -> int:
    """Start a script in several processes.

    SIGTERM, SIGINT and SIGUSR1 are passed on to all processes, which have `--shutdown-timeout` seconds, 30 by default,
    to end. What they report is printed once.

    Args:
        argv: flags of `torchrun`, such as `--nproc_per_node 8`, then the script and its arguments.

    Returns:
        Exit code: 0; 2 if the processes stopped for bad input; 75 if one on another machine was lost; 128 + N where
        signal N has ended the run, or killed a process.

    Raises:
        ChildFailedError: a process failed for another reason, and has shown its traceback.
    """
    with handled_signals(_interruption, math.inf) as signals, Launcher.opened() as launcher:
        received: int | None = None
        failures: Mapping[int, Any] = {}
        try:
            failures = _run(argv)
        except (Exception, Interrupted) as error:
            # torch's launcher handles SIGHUP and SIGQUIT by itself.
            received = signals.received or getattr(error, "sigval", None)
            if received is None:
                raise
        code, lines = _outcome(failures, launcher, received)
    for line in lines:
        print(line, file=sys.stderr)
    if code:
        exit_within(EXIT_S, code)
    return code


def _interruption(number: int) -> BaseException:
    """Return an error for a signal: of torch's launcher, if it runs, for it passes the signal on then."""
    elastic = sys.modules.get(f"{_ELASTIC}.multiprocessing.api")
    if elastic is None or not hasattr(elastic, "SignalException"):
        return Interrupted(number)
    error: BaseException = elastic.SignalException(f"signal {number}", signal.Signals(number))
    return error


def _run(argv: Sequence[str]) -> Mapping[int, Any]:
    """Run `torchrun`, and return the failed processes by rank, those that failed first first.

    Raises:
        ChildFailedError: a process failed by a bug.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    arguments = get_args_parser().parse_args(argv)
    if not _names_meeting_point(argv):
        # Use a free port instead of a fixed one, so that two jobs on a machine do not collide.
        arguments.standalone = True
    _leave_signals_to_us(arguments)
    _quieten(restarts=arguments.max_restarts > 0)
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads(arguments)))
    # A store that outlives a restart would send new processes to the address of old ones (PyTorch issue 135712).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    try:
        run(arguments)
    except ChildFailedError as error:
        root = _root(error.failures)
        bad_input = any(failure.exitcode == BAD_INPUT for failure in error.failures.values())
        if root.exitcode > 0 and root.exitcode not in _CONSEQUENCES and not bad_input:
            raise
        return error.failures
    return {}


def _leave_signals_to_us(arguments: argparse.Namespace) -> None:
    """Keep `torchrun` from replacing our handlers: of its own a second signal would leave processes behind."""
    given = getattr(arguments, "signals_to_handle", "").split(",")
    ours = {number.name for number in HANDLED}
    arguments.signals_to_handle = ",".join(name for name in given if name.strip() not in ours)


def _quieten(*, restarts: bool) -> None:
    """Silence `torchrun` about the ends of processes, which `multiproc` reports itself, unless they start again."""
    if "LOGLEVEL" not in os.environ:
        for name in ("multiprocessing.api", "agent.server.api"):
            logging.getLogger(f"{_ELASTIC}.{name}").setLevel(logging.ERROR if restarts else logging.CRITICAL)


def _outcome(
    failures: Mapping[int, Any], launcher: Launcher, received: int | None
) -> tuple[int, Sequence[str]]:
    """Return the exit code, and the lines to print, for processes that have ended.

    Args:
        failures: failed processes by rank; none after a signal to the launcher.
        launcher: has what the processes left.
        received: signal to the launcher.
    """
    endings = launcher.endings()
    codes = {failure.exitcode for failure in failures.values()} | {ending.code for ending in endings}
    codes = {code if code >= 0 else 128 - code for code in codes}
    if BAD_INPUT in codes:
        return BAD_INPUT, _messages(endings, BAD_INPUT)
    if received is not None:
        told = _messages(endings, 128 + received)[:1]
        return 128 + received, told or [f"{PROG}: {Interrupted(received)}"]
    if not failures:
        return 0, []
    root = _root(failures)
    if root.exitcode < 0 and root.exitcode != -signal.SIGTERM:
        name = signal.Signals(-root.exitcode).name
        rank = next(rank for rank, failure in failures.items() if failure is root)
        hint = ", possibly out of memory" if name == "SIGKILL" else ""
        return 128 - root.exitcode, [f"{PROG}: error: process {rank} was killed by {name}{hint}"]
    code = next((code for code in _INTERRUPTED if code in codes), PROCESS_LOST)
    return code, _messages(endings, code)[:1]


def _root(failures: Mapping[int, Any]) -> Any:
    """Return the failure that the others follow from."""
    every = list(failures.values())
    return next((failure for failure in every if failure.exitcode not in _CONSEQUENCES), every[0])


def _messages(endings: Sequence[Any], code: int) -> list[str]:
    return list(dict.fromkeys(ending.message for ending in endings if ending.code == code))


def _names_meeting_point(argv: Sequence[str]) -> bool:
    given = {argument.partition("=")[0].replace("_", "-") for argument in argv}
    # Kubernetes operators set it in the environment, where torchrun finds its defaults.
    named = {f"PET_{flag.removeprefix('--').replace('-', '_').upper()}" for flag in _MEETING_FLAGS}
    return bool(given & set(_MEETING_FLAGS) or named & os.environ.keys())


def _threads(arguments: argparse.Namespace) -> int:
    """Return the threads of each process: its share of the cores, instead of `torchrun`'s default of 1."""
    wanted = str(arguments.nproc_per_node)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(wanted)) if wanted.isdigit() else 1
