"""Checks of the processor, its cores, and memory."""

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from effnet.doctor.finding import Finding
from effnet.doctor.load import Busy, cpu_quota, sample_busy, usable_cores
from effnet.runtime.memory import available_memory
from effnet.runtime.processor import cpu_model, has_vnni, is_arm, vector_extensions

_TAKEN = 0.25  # share of the cores that others may take before it is worth a warning
_LITTLE = 2 * 2**30
_SHARED = Path("/dev/shm")
_SHARED_ENOUGH = 2**30
_WARN_TOGETHER = (
    "programs that start a thread for every core wait for each other; where their threads spin meanwhile, as PyTorch's "
    "do outside effnet's commands, all of them get slow"
)


def check_processor() -> Iterator[Finding]:
    """Report the processor, and what its vector extensions mean for INT8."""
    extensions = vector_extensions()
    arm = is_arm()
    facts = {"model": cpu_model(), "extensions": extensions, "vnni": has_vnni()}
    if extensions is None or arm:
        meaning = (
            "INT8 sums do not overflow on it, so that weights can keep 8 bits (--cpu vnni)"
            if arm
            else "this system does not tell its vector extensions"
        )
        yield Finding("processor", "ok", f"{cpu_model()}; {meaning}", facts=facts)
    elif has_vnni():
        wide = "AVX-512 with VNNI" if "avx512f" in extensions else "VNNI"
        meaning = (
            "an INT8 multiplication takes one instruction and its sums do not overflow: INT8 is about twice to three "
            "times as fast as FP32, and its weights keep 8 bits"
        )
        yield Finding("processor", "ok", f"{cpu_model()}, {wide}: {meaning}", facts=facts)
    elif "avx2" in extensions:
        wide = "AVX-512 without VNNI" if "avx512f" in extensions else "AVX2, no VNNI"
        meaning = (
            "an INT8 multiplication takes three instructions: INT8 is hardly faster than FP32, and its weights keep "
            "their 7 bits, because sums of 8 overflow"
        )
        yield Finding("processor", "ok", f"{cpu_model()}, {wide}: {meaning}", facts=facts)
    else:
        yield Finding(
            "processor",
            "warning",
            f"{cpu_model()}, without AVX2: PyTorch and INT8 are many times slower than on processors since 2013",
            "use another machine, or let a virtual machine have the host's processor (-cpu host)",
            facts,
        )


def check_cores() -> Iterator[Finding]:
    """Report the cores that this process may use, what limits them, and what others take of them."""
    cores = usable_cores()
    quota, busy = cpu_quota(), sample_busy(cores)
    threads = os.environ.get("OMP_NUM_THREADS", "")
    facts = {
        "usable": len(cores),
        "of": os.cpu_count(),
        "quota": quota,
        "taken": round(busy.cores, 2),
        "by": [{"name": name, "pid": pid, "cores": round(share, 2)} for name, pid, share in busy.processes],
        "load": _load(),
        "OMP_NUM_THREADS": threads or None,
    }
    yield _taken(cores, busy, facts)
    if quota is not None and quota < len(cores):
        yield _limited(quota, len(cores), threads)
    if threads.isdecimal() and int(threads) > len(cores):
        yield Finding(
            "threads",
            "warning",
            f"OMP_NUM_THREADS is {threads}, and there are {len(cores)} cores: threads wait for each other",
            f"export OMP_NUM_THREADS={len(cores)}",
        )


def _taken(cores: set[int], busy: Busy, facts: Mapping[str, object]) -> Finding:
    count = f"{len(cores)} core{'s' if len(cores) > 1 else ''}"
    every = os.cpu_count() or len(cores)
    allowed = f"{count} of {every} allowed" if every > len(cores) else count
    text = f"{allowed}, others take {busy.cores:.1f}"
    if busy.cores < max(0.3, _TAKEN * len(cores)):
        return Finding("cores", "ok", text, facts=facts)
    named = ", ".join(f"{name} (process {pid}) {share:.1f}" for name, pid, share in busy.processes)
    if named:
        text = f"{text}: {named}"
    return Finding("cores", "warning", f"{text}; {_WARN_TOGETHER}", _own_cores(sorted(cores)), facts)


def _own_cores(cores: list[int]) -> str:
    """Return how to run beside another training."""
    if len(cores) < 2 or shutil.which("taskset") is None:
        threads = max(1, len(cores) // 2)
        return f"wait for them, or start each with OMP_NUM_THREADS={threads} and --workers {threads}"
    mine = cores[: len(cores) // 2]
    listed = str(mine[0]) if len(mine) == 1 else ",".join(map(str, mine))
    if mine == list(range(mine[0], mine[-1] + 1)) and len(mine) > 1:
        listed = f"{mine[0]}-{mine[-1]}"
    return (
        "wait for them, or give each training cores of its own: "
        f"OMP_NUM_THREADS={len(mine)} taskset -c {listed} effnet train ... --workers {len(mine)}"
    )


def _limited(quota: float, cores: int, threads: str) -> Finding:
    whole = max(1, int(quota))
    text = f"the control group allows {quota:g} of the {cores} cores at a time"
    if threads.isdecimal() and int(threads) <= whole:
        return Finding("core limit", "ok", f"{text}, and OMP_NUM_THREADS is {threads}")
    return Finding(
        "core limit",
        "warning",
        f"{text}, but PyTorch starts {cores} threads, which the system then stops again and again",
        f"export OMP_NUM_THREADS={whole} and give --workers {whole}; or raise the limit (docker run --cpus, Kubernetes "
        "resources.limits.cpu)",
    )


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def check_memory() -> Iterator[Finding]:
    """Report the memory that is free."""
    free = available_memory()
    facts = {"free": free}
    text = f"{free / 2**30:.1f} GiB free"
    if free < _LITTLE:
        remedy = "end other programs, or lower --batch-size and --workers"
        yield Finding("memory", "warning", f"{text}, which is little for a training", remedy, facts)
    else:
        yield Finding("memory", "ok", text, facts=facts)


def check_shared_memory(folder: Path = _SHARED) -> Iterator[Finding]:
    """Report the shared memory, in which loader workers hand batches to the training process."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        if platform.system() == "Linux":
            text = f"{folder} is not there ({error.strerror}): loader workers can't hand over batches"
            yield Finding("shared memory", "broken", text, f"mount a tmpfs on {folder}, or give --workers 0")
        return
    facts = {"size": usage.total, "free": usage.free}
    if not os.access(folder, os.W_OK):
        text = f"{folder} can't be written: loader workers can't hand over batches"
        yield Finding("shared memory", "broken", text, f"chmod 1777 {folder}, or give --workers 0", facts)
    elif usage.free < _SHARED_ENOUGH:
        yield Finding(
            "shared memory",
            "warning",
            f"{usage.free / 2**20:,.0f} MiB free of {usage.total / 2**20:,.0f} in {folder}: when it is full, loader "
            "workers end with a bus error",
            "docker run --shm-size=8g or --ipc=host; in Kubernetes an emptyDir of medium Memory; or give --workers 0",
            facts,
        )
    else:
        text = f"{usage.free / 2**30:,.1f} GiB free in {folder}"
        yield Finding("shared memory", "ok", text, facts=facts)
