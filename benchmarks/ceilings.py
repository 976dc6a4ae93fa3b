"""Peak rates of a machine, measured: the two ceilings of a roofline."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from effnet.kernels.choose import milliseconds

# Several times larger than the caches; large enough to keep all units busy.
COPY_BYTES = {"cuda": 4 << 30, "cpu": 512 << 20}
MATRIX_SIDE = {"cuda": 8192, "cpu": 2048}


@dataclass(frozen=True)
class Ceilings:
    """Peak rates of a machine.

    Attributes:
        copy: bytes per second of a large copy, counting read and written bytes.
        matrix: operations per second of a large matrix product, counting multiplications and additions.
        measured: True if measured on this machine, False if given.
    """

    copy: float
    matrix: float
    measured: bool

    def floor(self, moved: float, operations: float) -> float:
        """Return the least seconds to move `moved` bytes and do `operations` operations at the same time."""
        return max(moved / self.copy, operations / self.matrix)


def measure_ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Measure both rates, on random data because zeros can be faster."""
    source = torch.randn(COPY_BYTES[device.type] // 8, device=device)
    target = torch.empty_like(source)
    copied = milliseconds(lambda: target.copy_(source), device) / 1000
    side = MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    # The same product as a 1x1 convolution, which on a CPU runs in another library, up to twice as fast.
    image = a.view(1, 1, side, side).permute(0, 3, 1, 2)
    products = (lambda: a @ b, lambda: F.conv2d(image, b[:, :, None, None]))
    multiplied = min(milliseconds(product, device) for product in products) / 1000
    return Ceilings(2 * source.nbytes / copied, 2 * side**3 / multiplied, measured=True)
