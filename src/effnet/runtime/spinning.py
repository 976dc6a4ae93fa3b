"""Waiting of OpenMP's threads between the operators of PyTorch on a CPU."""

import os

_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
# Some 20 microseconds: longer than most gaps between operators, and far shorter than the system's turn of a process.
_ROUNDS = 10_000


def bound_spinning() -> None:
    """Let waiting threads go to sleep soon. Call this before PyTorch is imported, which reads the setting.

    By default GNU's OpenMP lets a thread spin for milliseconds until the others of its team have come. Where another
    process has the core that one of them needs, all that time is lost, and both processes with it
    (`docs/performance.md`). A setting in the environment holds.
    """
    if not any(name in os.environ for name in _VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = str(_ROUNDS)
