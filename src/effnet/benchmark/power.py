"""Power draw of the device, where the system reports it."""

import time
from pathlib import Path

import torch

# The processor's own counter of microjoules (Intel and AMD, Linux); readable by root alone on most machines.
_RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")


class PowerMeter:
    """Power of a GPU at the end of a span (NVML), or mean power of the processor over the span (RAPL).

    Attributes:
        watts: power in the last span; None if it can't be read.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.watts: float | None = None
        self._energy: int | None = None
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
        # The counter wraps around.
        known = energy is not None and self._energy is not None and energy >= self._energy and seconds > 0
        self.watts = (energy - self._energy) / 1e6 / seconds if known else None  # type: ignore[operator]

    def _gpu_watts(self) -> float | None:
        try:
            return torch.cuda.power_draw(self.device) / 1000
        except Exception:  # nvidia-ml-py is missing, or NVML reports an error, which has a class of its own
            return None

    def _microjoules(self) -> int | None:
        if self.device.type == "cuda":
            return None
        try:
            return int(_RAPL.read_text())
        except (OSError, ValueError):
            return None
