"""Checks of PyTorch and of the GPUs that it sees, or should see."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effnet.doctor.finding import Finding

_SECONDS = 8.0
_QUERY = ("name", "driver_version", "memory.total", "memory.used")
_DRIVER = Path("/proc/driver/nvidia/version")
_TAKEN = 0.25  # share of a GPU's memory that others have taken above which they are named


@dataclass(frozen=True)
class Gpu:
    """A GPU as NVIDIA's driver sees it; memory in MiB."""

    name: str
    driver: str
    memory: float
    used: float


def driver_gpus() -> Sequence[Gpu] | str | None:
    """Return what nvidia-smi lists.

    Returns:
        The GPUs; a text that says what is wrong with the driver; None on a machine without one.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return "nvidia-smi is not there" if _DRIVER.exists() else None
    query = [command, f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi fails ({error})"
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
        # In an image for GPUs on a machine without one, the command is there and finds no driver.
        return f"nvidia-smi fails ({said[0]})" if _DRIVER.exists() else None
    return [gpu for gpu in map(_parsed, done.stdout.splitlines()) if gpu is not None]


def _parsed(line: str) -> Gpu | None:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(_QUERY):
        return None
    return Gpu(cells[0], cells[1], _number(cells[2]), _number(cells[3]))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # [N/A], on machines whose GPU shares the memory of the processor
        return 0.0


def check_torch(report: Mapping[str, Any]) -> Iterator[Finding]:
    """Report how PyTorch works; whether it fits is seen by `check_packages`.

    Args:
        report: that of `effnet.doctor.imports`.
    """
    if "error" in report:
        return  # told with the packages
    if trouble := report.get("trouble"):
        text = f"{report.get('version')} can be imported, but does not work ({trouble})"
        yield Finding("PyTorch", "broken", text, "install it again, in an environment of its own")
        return
    cuda = report.get("cuda")
    built = f"built for CUDA {cuda}" if cuda else "built for CPUs"
    threads = report.get("threads")
    facts = {name: report.get(name) for name in ("version", "cuda", "threads")}
    yield Finding("PyTorch", "ok", f"{built}, computes with {threads} threads", facts=facts)


def check_gpus(driver: Sequence[Gpu] | str | None, report: Mapping[str, Any]) -> Iterator[Finding]:
    """Report GPUs and driver, and why PyTorch does not use them.

    Args:
        driver: what `driver_gpus` found.
        report: on PyTorch, of `effnet.doctor.imports`.
    """
    seen: Sequence[Mapping[str, Any]] = report.get("gpus") or []
    if isinstance(driver, str):
        yield Finding(
            "GPU",
            "broken",
            f"a driver of NVIDIA is loaded, but {driver}",
            "restart the machine after an update of the driver, or install the driver's tools",
        )
    elif not driver and not seen:
        yield Finding("GPU", "ok", "none of NVIDIA: everything runs on the CPU", facts={"gpus": []})
    elif "error" in report:
        yield Finding("GPU", "warning", "can't be looked at without PyTorch", "see above")
    elif not seen:
        yield _unused(driver or [], report)
    else:
        yield from _used(driver or [], seen, report)


def _unused(driver: Sequence[Gpu], report: Mapping[str, Any]) -> Finding:
    named = f"{', '.join(gpu.name for gpu in driver)}, driver {driver[0].driver if driver else 'unknown'}"
    facts = {"gpus": [asdict(gpu) for gpu in driver]}
    cuda = report.get("cuda")
    if not cuda:
        text = f"{named}; this PyTorch is built for CPUs and does not use it"
        return Finding("GPU", "broken", text, "install a PyTorch that is built for CUDA", facts)
    why = " ".join(report.get("cuda_trouble") or []) or "PyTorch does not say why"
    remedy = (
        f"update the driver to one for CUDA {cuda}, or install a PyTorch for the driver's CUDA (nvidia-smi shows it); "
        "see that CUDA_VISIBLE_DEVICES is not empty"
    )
    return Finding("GPU", "broken", f"{named}; CUDA {cuda} does not work on it ({why})", remedy, facts)


def _used(
    driver: Sequence[Gpu], seen: Sequence[Mapping[str, Any]], report: Mapping[str, Any]
) -> Iterator[Finding]:
    version = f", driver {driver[0].driver}" if driver else ""
    listed = ", ".join(f"{gpu['name']} ({gpu['memory'] / 2**30:.0f} GiB)" for gpu in seen)
    facts = {"gpus": list(seen), "driver": driver[0].driver if driver else None}
    built = [int(name.removeprefix("sm_")) for name in report.get("architectures") or [] if _is_plain(name)]
    for gpu in seen:
        major, _, minor = str(gpu["capability"]).partition(".")
        level = 10 * int(major) + int(minor)
        # Code for the same generation runs, and the newest code is compiled for later ones by the driver.
        if built and level < min(built):
            text = f"{gpu['name']} has compute capability {gpu['capability']}, for which this PyTorch has no code"
            yield Finding(
                "GPU", "broken", text, "install a PyTorch that supports it, or use --device cpu", facts
            )
            return
    yield Finding("GPU", "ok", listed + version, facts=facts)
    for number, card in enumerate(driver):
        if card.memory and card.used > _TAKEN * card.memory:
            text = f"GPU {number}: {card.used:,.0f} of {card.memory:,.0f} MiB are taken"
            remedy = "see by whom with nvidia-smi, or choose another GPU with CUDA_VISIBLE_DEVICES"
            yield Finding("GPU memory", "warning", text, remedy, asdict(card))


def _is_plain(architecture: str) -> bool:
    return architecture.startswith("sm_") and architecture.removeprefix("sm_").isdecimal()
