"""Cores: how many this process may use, and how busy others keep them."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_SHOWN = 0.2  # cores above which a process is named
_MOST_NAMED = 3


@dataclass(frozen=True)
class Busy:
    """Use of the cores by other processes.

    Attributes:
        cores: cores of those that this process may use, on average over the sample.
        processes: name, process id and cores of those that take most.
    """

    cores: float
    processes: tuple[tuple[str, int, float], ...]


def usable_cores() -> set[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Return the cores that the control group allows at a time; None without such a limit.

    Args:
        root: root of the file system.
    """
    groups = root / "sys/fs/cgroup"
    quotas = []
    for folder in _own_groups(root):
        quotas.append(_quota(_text(groups / folder / "cpu.max").split()))
        old = groups / "cpu" / folder
        quotas.append(_quota([_text(old / f"cpu.cfs_{name}_us") for name in ("quota", "period")]))
    return min((quota for quota in quotas if quota is not None), default=None)


def _own_groups(root: Path) -> Iterable[Path]:
    """Return the folders of the process's control groups and of those that they lie in, below their mount."""
    folders = {Path()}
    for line in _text(root / "proc/self/cgroup").splitlines():
        folder = Path(line.rpartition(":")[2].lstrip("/"))
        folders |= {folder, *folder.parents}
    return folders


def _quota(words: list[str]) -> float | None:
    try:
        quota, period = map(int, words)
    except ValueError:  # `max`, or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def sample_busy(cores: set[int], seconds: float = 0.4, proc: Path = _ROOT / "proc") -> Busy:
    """Return what other processes take of `cores`, looked at for some seconds in which this process sleeps."""
    start, processes = time.monotonic(), _process_ticks(proc)
    before = _core_ticks(proc, cores)
    time.sleep(seconds)
    after, passed = _core_ticks(proc, cores), time.monotonic() - start
    per_core = os.sysconf("SC_CLK_TCK") * passed
    taken = [
        (name, number, (ticks - processes.get(number, (name, ticks))[1]) / per_core)
        for number, (name, ticks) in _process_ticks(proc).items()
        if number != os.getpid()
    ]
    taken.sort(key=lambda entry: -entry[2])
    named = tuple(entry for entry in taken if entry[2] >= _SHOWN)[:_MOST_NAMED]
    total = after[1] - before[1]
    # Some containers do not show the machine's cores, but their own processes all the same.
    busy = len(cores) * (after[0] - before[0]) / total if total > 0 else 0.0
    return Busy(min(float(len(cores)), max(busy, sum(share for _, _, share in taken))), named)


def _core_ticks(proc: Path, cores: set[int]) -> tuple[int, int]:
    """Return the ticks in which cores were busy, and all ticks."""
    busy = total = 0
    for line in _text(proc / "stat").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
            ticks = [int(field) for field in fields[:8]]  # those of guests are counted as user's already
            total += sum(ticks)
            busy += sum(ticks) - sum(ticks[3:5])  # idle, and waiting for a disk
    return busy, total


def _process_ticks(proc: Path) -> dict[int, tuple[str, int]]:
    """Return name and used ticks of every process."""
    found = {}
    for folder in proc.iterdir():
        if not folder.name.isdecimal():
            continue
        before, _, after = _text(folder / "stat").rpartition(")")
        fields = after.split()
        if len(fields) > 12:
            found[int(folder.name)] = (before.partition("(")[2], int(fields[11]) + int(fields[12]))
    return found
