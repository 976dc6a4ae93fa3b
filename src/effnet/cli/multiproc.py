"""NVIDIA's `multiproc.py`: `torchrun` with defaults for one machine."""

import argparse
import os
from collections.abc import Sequence

BAD_INPUT = 2  # exit code of `effnet.cli.main` for it
# Flags for the rendezvous of processes on several machines.
_MEETING_FLAGS = ("--nnodes", "--master-addr", "--master-port", "--rdzv-backend", "--rdzv-endpoint")


def multiproc(argv: Sequence[str]) -> int:
    """Start a script in several processes.

    Args:
        argv: flags of `torchrun`, such as `--nproc_per_node 8`, then the script and its arguments.

    Returns:
        Exit code: 0, or 2 if the processes stopped for bad input, which they have reported.

    Raises:
        ChildFailedError: a process failed for another reason.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import get_args_parser, run

    arguments = get_args_parser().parse_args(argv)
    if not _names_meeting_point(argv):
        # Use a free port instead of a fixed one, so that two jobs on a machine do not collide.
        arguments.standalone = True
    os.environ.setdefault("OMP_NUM_THREADS", str(_threads(arguments)))
    # A store that outlives a restart would send new processes to the address of old ones (PyTorch issue 135712).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    try:
        run(arguments)
    except ChildFailedError as error:
        # The other processes may have failed because this one stopped.
        if any(failure.exitcode == BAD_INPUT for failure in error.failures.values()):
            return BAD_INPUT
        raise
    return 0


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
