"""Processes that end with their parent, and the end of this process's own."""

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from effnet.runtime.launcher import Launcher

_PR_SET_PDEATHSIG = 1
_WATCH_S = 1.0


def end_with_parent(number: int, parent: int) -> None:
    """Send this process a signal when its parent has ended.

    On Linux the kernel does so, when the thread that started this process has ended; elsewhere a thread looks for it.

    Args:
        number: the signal.
        parent: process id of the parent, which may have ended already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(number, parent), daemon=True, name="effnet-parent").start()
    if os.getppid() != parent and not _lives(parent):
        os.kill(os.getpid(), number)


def end_with_launcher() -> None:
    """Send this process SIGTERM when the `torchrun` that started it has ended, which without this would orphan it."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        launcher = Launcher.found()
        end_with_parent(signal.SIGTERM, os.getppid() if launcher is None else launcher.process)


def _watch(number: int, parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os.kill(os.getpid(), number)


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state not in (b"Z", b"X")


def kill_children() -> None:
    """Kill this process's children of `multiprocessing`, so that none holds up the end of this process."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is None:
        return
    # PyTorch's handler would raise an error for each worker that ends.
    with suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in multiprocessing.active_children():
        child.kill()


def exit_within(seconds: float, code: int) -> None:
    """End this process some time after its main thread, whatever other threads or exit handlers wait for.

    Args:
        seconds: from the end of the main thread.
        code: exit code.
    """

    def end() -> None:
        threading.main_thread().join()
        time.sleep(seconds)
        os._exit(code)

    threading.Thread(target=end, daemon=True, name="effnet-exit").start()
