"""RMSprop's update in one pass, for which PyTorch has no fused form: by Triton, in C++, or plain PyTorch operators.

All leave everything as it is if the gradients are not finite, which a tensor on the device says: nothing waits for it.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from effnet.kernels import cpu_rmsprop
from effnet.kernels.available import INTERPRETING, has_triton

logger = logging.getLogger(__name__)

_BLOCK = 1024
# Elements that the kernel is tried on before it is trusted, and what the fusing of products and sums may change.
_TRIAL = 5000
_AGREEMENT = 1e-5


@dataclass(frozen=True)
class Rates:
    """Numbers of an update; see `torch.optim.RMSprop`."""

    lr: float
    weight_decay: float
    alpha: float
    eps: float
    momentum: float


Update = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor, Rates], None]
"""updates parameter, (gradient,) square average and momentum buffer in place, unless the fifth tensor is above 0"""


def plain_update(
    parameter: Tensor,
    gradient: Tensor,
    square_avg: Tensor,
    momentum_buffer: Tensor | None,
    found_inf: Tensor,
    rates: Rates,
) -> None:
    """Update as `torch.optim.RMSprop` does, bit for bit, unless `found_inf` is above 0.

    Args:
        parameter, gradient, square_avg, momentum_buffer: of one shape and type; without momentum the last is None.
        found_inf: float32 scalar on their device.
        rates: the numbers.
    """
    slope = gradient.add(parameter, alpha=rates.weight_decay) if rates.weight_decay else gradient
    square = (square_avg * rates.alpha).addcmul_(slope, slope, value=1 - rates.alpha)
    root = square.sqrt().add_(rates.eps)
    changed = [(square_avg, square)]
    if momentum_buffer is None:
        changed.append((parameter, parameter.addcdiv(slope, root, value=-rates.lr)))
    else:
        move = (momentum_buffer * rates.momentum).addcdiv_(slope, root)
        changed += [(momentum_buffer, move), (parameter, parameter.add(move, alpha=-rates.lr))]
    is_left_out = found_inf > 0
    for old, new in changed:
        torch.where(is_left_out, old, new, out=old)


def triton_update(
    parameter: Tensor,
    gradient: Tensor,
    square_avg: Tensor,
    momentum_buffer: Tensor | None,
    found_inf: Tensor,
    rates: Rates,
) -> None:
    """Do the same in one kernel, which rounds a product and the sum after it once; float32, contiguous."""
    from effnet.kernels.triton_rmsprop import rmsprop_kernel

    count = parameter.numel()
    rmsprop_kernel[(-(-count // _BLOCK),)](
        parameter,
        gradient,
        square_avg,
        parameter if momentum_buffer is None else momentum_buffer,
        found_inf,
        count,
        rates.lr,
        rates.weight_decay,
        rates.alpha,
        1 - rates.alpha,
        rates.eps,
        rates.momentum,
        HAS_MOMENTUM=momentum_buffer is not None,
        BLOCK=_BLOCK,
    )


def cpu_update(
    parameter: Tensor,
    gradient: Tensor,
    square_avg: Tensor,
    momentum_buffer: Tensor | None,
    found_inf: Tensor,
    rates: Rates,
) -> None:
    """Do the same in one pass of a CPU where `effnet.kernels.cpu_rmsprop` takes the parameter, else plainly."""
    if not cpu_rmsprop.takes(parameter):
        plain_update(parameter, gradient, square_avg, momentum_buffer, found_inf, rates)
    elif not found_inf > 0:
        cpu_rmsprop.update(parameter, gradient, square_avg, momentum_buffer, **vars(rates))


def update_for(device: torch.device) -> Update:
    """Return the pass for a device: on a CPU in C++, on a GPU in Triton if it agrees with the plain update there."""
    if device.type == "cpu" and not INTERPRETING:
        return cpu_update
    runs_kernels = (device.type == "cuda" or INTERPRETING) and has_triton()
    return triton_update if runs_kernels and _agrees(device) else plain_update


@functools.cache
def _agrees(device: torch.device) -> bool:
    """Try the kernel on random tensors, taken and left out; say so if it is not to be used."""
    generator = torch.Generator(device).manual_seed(0)
    given = torch.rand(4, _TRIAL, device=device, generator=generator)
    rates = Rates(lr=0.1, weight_decay=0.01, alpha=0.9, eps=0.01, momentum=0.9)
    try:
        for left_out in (0.0, 1.0):
            found_inf = torch.full((), left_out, device=device)
            ours, theirs = given.clone(), given.clone()
            for update, tensors in ((triton_update, ours), (plain_update, theirs)):
                parameter, gradient, square_avg, momentum_buffer = tensors
                update(parameter, gradient, square_avg, momentum_buffer, found_inf, rates)
            torch.testing.assert_close(ours, theirs, rtol=_AGREEMENT, atol=_AGREEMENT)
    except Exception as error:  # whatever a compiler or driver raises: PyTorch's operators remain
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning("the update of RMSprop runs as PyTorch's operators, not as one kernel: %s", reason)
        return False
    return True
