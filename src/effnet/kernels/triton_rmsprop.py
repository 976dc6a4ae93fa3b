"""RMSprop's update as one Triton kernel: each operand is read once and each result written once."""

from effnet.kernels.triton_language import tl, triton


@triton.jit
def rmsprop_kernel(
    parameter,
    gradient,
    square_avg,
    momentum_buffer,
    found_inf,
    count,
    lr,
    weight_decay,
    alpha,
    one_minus_alpha,
    eps,
    momentum,
    HAS_MOMENTUM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Update `count` elements in place, unless `found_inf` is above 0."""
    if tl.load(found_inf) == 0:
        at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = at < count
        weight = tl.load(parameter + at, mask=inside)
        slope = tl.load(gradient + at, mask=inside) + weight_decay * weight
        square = alpha * tl.load(square_avg + at, mask=inside) + one_minus_alpha * slope * slope
        tl.store(square_avg + at, square, mask=inside)
        move = tl.div_rn(slope, tl.sqrt_rn(square) + eps)
        if HAS_MOMENTUM:
            move += momentum * tl.load(momentum_buffer + at, mask=inside)
            tl.store(momentum_buffer + at, move, mask=inside)
        tl.store(parameter + at, weight - lr * move, mask=inside)
