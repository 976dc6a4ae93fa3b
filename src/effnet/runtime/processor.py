"""Facts about this machine's processor."""

import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_ARM = ("aarch64", "arm64")
_EXTENSIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni")


def vector_extensions(cpu_info: Path = _CPU_INFO) -> tuple[str, ...] | None:
    """Return the vector extensions of an x86 CPU on which the speed and the accuracy of INT8 depend.

    Args:
        cpu_info: the system's description of the processor.

    Returns:
        Flags in the system's spelling, such as ``avx512_vnni``; None where the system does not tell.
    """
    text = _described(cpu_info)
    if text is None:
        return None
    words = set(text.split())
    return tuple(flag for flag in _EXTENSIONS if flag in words)


def has_vnni(cpu_info: Path = _CPU_INFO) -> bool:
    """Return whether the CPU is known to add products of 8 bits in 32 (VNNI), where sums do not overflow."""
    return any("vnni" in flag for flag in vector_extensions(cpu_info) or ())


def is_intel(cpu_info: Path = _CPU_INFO) -> bool:
    """Return whether the CPU is one of Intel's, or may be, as the system does not tell."""
    text = _described(cpu_info) or ""
    return "vendor_id" not in text or "GenuineIntel" in text


def is_arm() -> bool:
    """Return whether the CPU is an ARM of 64 bits."""
    return platform.machine().lower() in _ARM


def sums_overflow(cpu_info: Path = _CPU_INFO) -> bool:
    """Return whether sums of products of 8-bit integers may overflow on the CPU: not with VNNI, and not on ARM."""
    return not is_arm() and not has_vnni(cpu_info)


def cpu_model(cpu_info: Path = _CPU_INFO) -> str:
    """Return the name of the processor, as the system tells it; its architecture where it does not."""
    for line in (_described(cpu_info) or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _described(cpu_info: Path) -> str | None:
    """Return the system's description of the processor, None where there is none."""
    try:
        return cpu_info.read_text(encoding="utf-8")
    except OSError:
        return None
