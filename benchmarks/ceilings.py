"""What a machine can do at best, measured: the two ceilings that a roofline needs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from effnet.kernels.choose import milliseconds

# Several times the caches, and a product that keeps all units busy.
COPY_BYTES = {"cuda": 4 << 30, "cpu": 512 << 20}
MATRIX_SIDE = {"cuda": 8192, "cpu": 2048}


@dataclass(frozen=True)
class Ceilings:
    """Rates of a machine.

    Attributes:
        copy: bytes a second of a large copy, read and written bytes both counted.
        matrix: operations a second of a large matrix product, multiplications and additions both counted.
        measured: whether they were measured here, or given.
    """

    copy: float
    matrix: float
    measured: bool

    def floor(self, moved: float, operations: float) -> float:
        """Least seconds for moving so many bytes and doing so many operations, the two side by side."""
        return max(moved / self.copy, operations / self.matrix)


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Measure both on random numbers: zeros can be faster than data."""
    source = torch.randn(COPY_BYTES[device.type] // 8, device=device)
    target = torch.empty_like(source)
    copied = milliseconds(lambda: target.copy_(source), device) / 1000
    side = MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    # The same product as a 1x1 convolution: on a CPU another library does it, at up to twice the speed.
    image = a.view(1, 1, side, side).permute(0, 3, 1, 2)
    products = (lambda: a @ b, lambda: F.conv2d(image, b[:, :, None, None]))
    multiplied = min(milliseconds(product, device) for product in products) / 1000
    return Ceilings(2 * source.nbytes / copied, 2 * side**3 / multiplied, measured=True)
