"""Power draw of the device, where the system reports it."""

import time
from pathlib import Path

import torch

# The processors' own counters of microjoules (Intel and AMD, Linux); readable by root alone on most machines.
_RAPL = Path("/sys/class/powercap")
_PACKAGES = "intel-rapl:[0-9]*"


class PowerMeter:
    """Power of a GPU at the end of a span (NVML), or mean power of all processors over the span (RAPL).

    Args:
        device: the GPU; for a CPU, all processors.
        counters: folder of the processors' counters.

    Attributes:
        watts: power in the last span; None if it can't be read.
    """

    def __init__(self, device: torch.device, counters: Path = _RAPL) -> None:
        self.device = device
        # Parts of a processor, which it counts as well, have a second number: intel-rapl:0:1.
        self._packages = sorted(path for path in counters.glob(_PACKAGES) if path.name.count(":") == 1)
        self.watts: float | None = None
        self._energy: list[int] | None = None
        self._begun = 0.0

    def start(self) -> None:
        """Begin a span."""
        self._energy, self._begun = self._microjoules(), time.perf_counter()

    def stop(self) -> None:
        """End the span; called while a GPU is still at work."""
        if self.device.type == "cuda":
            self.watts = self._gpu_watts()
            return
        energy, seconds = self._microjoules(), time.perf_counter() - self._begun
        self.watts = None
        if energy is not None and self._energy is not None and seconds > 0:
            used = [
                self._used(package, before, after)
                for package, before, after in zip(self._packages, self._energy, energy, strict=True)
            ]
            known = [microjoules for microjoules in used if microjoules is not None]
            if len(known) == len(used):
                self.watts = sum(known) / 1e6 / seconds

    def _gpu_watts(self) -> float | None:
        try:
            return torch.cuda.power_draw(self.device) / 1000
        except Exception:  # nvidia-ml-py is missing, or NVML reports an error, which has a class of its own
            return None

    def _microjoules(self) -> list[int] | None:
        if self.device.type == "cuda" or not self._packages:
            return None
        counted = [_number(package / "energy_uj") for package in self._packages]
        known = [microjoules for microjoules in counted if microjoules is not None]
        return known if len(known) == len(counted) else None

    def _used(self, package: Path, before: int, after: int) -> int | None:
        """Return the difference of a counter that begins again at 0 after its largest value."""
        if after >= before:
            return after - before
        largest = _number(package / "max_energy_range_uj")
        return None if largest is None else after + largest - before


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
