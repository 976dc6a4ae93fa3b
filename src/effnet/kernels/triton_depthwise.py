"""Depthwise convolution of channels-last tensors as Triton kernels.

A depthwise convolution does 2 k^2 operations on each number that it moves, so on a GPU it is to run at the speed of
the memory. Two things keep a simple kernel from that: it loads each input k^2 times from the cache, and with a SiLU
fused in front, it computes as many sigmoids on the few units that can. Hence the form of both kernels here:

- A program owns `STRIPS` strips of `COLUMNS` neighbouring columns by `CHANNELS` channels and walks down `ROWS` rows.
  Lanes run along the channels, the contiguous dimension, so that accesses are coalesced.
- A strip's columns and the rows in flight are tuples of tiles, unrolled at compile time: shifting the window of a
  convolution only renames registers. Going down a row loads each of a strip's columns and its halo once, and applies
  BatchNorm and activation once: (COLUMNS + k - 1) / COLUMNS loads per number in place of k^2.
- What is summed over the batch leaves a program as one row of partial results. A second stage adds the rows up in
  a fixed order, so results do not change from run to run, as they would with atomic additions.

Geometry is constant at compile time: a network has a dozen shapes, and index arithmetic becomes shifts and additions.
Sums are kept in float32, or float64 for float64 inputs, which the interpreter's tests use.
"""

from effnet.kernels.triton_language import tl, triton


@triton.jit
def _zeros(COUNT: tl.constexpr, STRIPS: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr):
    tiles = ()
    for _ in tl.static_range(COUNT):
        tiles = tiles + (tl.zeros([STRIPS, CHANNELS], DTYPE),)
    return tiles


@triton.jit
def _with(tiles, INDEX: tl.constexpr, tile):
    return tiles[:INDEX] + (tile,) + tiles[INDEX + 1 :]


@triton.jit
def _taps(weight, channels, is_channel, K: tl.constexpr, DTYPE: tl.constexpr):
    """The k^2 weights of each channel, as rows to be broadcast over strips."""
    taps = ()
    for tap in tl.static_range(K * K):
        value = tl.load(weight + channels * (K * K) + tap, mask=is_channel, other=0.0)
        taps = taps + (value.to(DTYPE)[None, :],)
    return taps


@triton.jit
def _activated(value, ACTIVATION: tl.constexpr):
    if ACTIVATION == "silu":
        return value * tl.sigmoid(value)
    elif ACTIVATION == "relu6":
        return tl.minimum(tl.maximum(value, 0.0), 6.0)
    else:
        return value


@triton.jit
def _slope(value, ACTIVATION: tl.constexpr):
    """Derivative of `_activated`."""
    if ACTIVATION == "silu":
        sigmoid = tl.sigmoid(value)
        return sigmoid * (1.0 + value * (1.0 - sigmoid))
    elif ACTIVATION == "relu6":
        return tl.where((value > 0.0) & (value < 6.0), 1.0, 0.0)
    else:
        return tl.zeros_like(value) + 1.0


@triton.jit
def forward_kernel(
    x,
    weight,
    scale,
    shift,
    y,
    partials,
    C: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    TOP: tl.constexpr,
    LEFT: tl.constexpr,
    NORMALISED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    STRIPS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Y = depthwise(act(x * scale + shift), weight), and the count, mean and squared deviation of each program's Y.

    Grid: (images x row chunks x strip groups, channel blocks). `partials` is (3, first size of the grid, C).
    """
    sums_dtype: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    groups: tl.constexpr = (OUT_W + STRIPS * COLUMNS - 1) // (STRIPS * COLUMNS)
    chunks: tl.constexpr = (OUT_H + ROWS - 1) // ROWS
    # Output rows that one input row contributes to, and input columns that a strip's outputs see.
    depth: tl.constexpr = (K + STRIDE - 1) // STRIDE
    seen: tl.constexpr = (COLUMNS - 1) * STRIDE + K

    part = tl.program_id(0)
    image = (part // (groups * chunks)).to(tl.int64)
    first_row = (part // groups % chunks) * ROWS
    first_column = ((part % groups) * STRIPS + tl.arange(0, STRIPS)) * COLUMNS
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < C
    x += image * (H * W * C)
    y += image * (OUT_H * OUT_W * C)

    taps = _taps(weight, channels, is_channel, K, sums_dtype)
    if NORMALISED:
        factor = tl.load(scale + channels, mask=is_channel, other=0.0).to(sums_dtype)[None, :]
        offset = tl.load(shift + channels, mask=is_channel, other=0.0).to(sums_dtype)[None, :]

    sums = _zeros(depth * COLUMNS, STRIPS, CHANNELS, sums_dtype)
    count = tl.zeros([STRIPS, CHANNELS], sums_dtype)
    pilot = tl.zeros([STRIPS, CHANNELS], sums_dtype)
    deviation = tl.zeros([STRIPS, CHANNELS], sums_dtype)
    squares = tl.zeros([STRIPS, CHANNELS], sums_dtype)
    for step in range(ROWS + depth - 1):
        row = first_row + step
        for phase in tl.static_range(STRIDE):
            in_row = row * STRIDE - TOP + phase
            for column in tl.static_range(seen):
                in_column = first_column * STRIDE - LEFT + column
                inside = ((in_row >= 0) & (in_row < H) & (in_column >= 0) & (in_column < W))[:, None]
                inside = inside & is_channel[None, :]
                place = (in_row * W + in_column)[:, None] * C + channels[None, :]
                value = tl.load(x + place, mask=inside, other=0.0).to(sums_dtype)
                if NORMALISED:
                    # The padding is zero after the activation, not before it.
                    value = tl.where(inside, _activated(value * factor + offset, ACTIVATION), 0.0)
                for behind in tl.static_range(depth):
                    for out in tl.static_range(COLUMNS):
                        # The tap that leads from this input to that output, if there is one:
                        if (
                            behind * STRIDE + phase < K
                            and column - out * STRIDE >= 0
                            and column - out * STRIDE < K
                        ):
                            product = value * taps[(behind * STRIDE + phase) * K + column - out * STRIDE]
                            sums = _with(sums, behind * COLUMNS + out, sums[behind * COLUMNS + out] + product)
        # The oldest row in flight has now met all of its taps.
        done = row - (depth - 1)
        for out in tl.static_range(COLUMNS):
            column = first_column + out
            inside = ((done >= first_row) & (done < OUT_H) & (column < OUT_W))[:, None] & is_channel[None, :]
            # Statistics are of what is stored, as a BatchNorm that reads it would find them.
            stored = sums[(depth - 1) * COLUMNS + out].to(y.dtype.element_ty)
            tl.store(y + (done * OUT_W + column)[:, None] * C + channels[None, :], stored, mask=inside)
            result = stored.to(sums_dtype)
            # Deviations from a lane's first result: a variance from plain sums loses its digits to a large mean.
            pilot = tl.where(inside & (count == 0.0), result, pilot)
            off = tl.where(inside, result - pilot, 0.0)
            count += tl.where(inside, 1.0, 0.0)
            deviation += off
            squares += off * off
        sums = _zeros(COLUMNS, STRIPS, CHANNELS, sums_dtype) + sums[: (depth - 1) * COLUMNS]

    # Merge the lanes of each channel (Chan, Golub and LeVeque, 1979).
    number = tl.maximum(count, 1.0)
    mean = pilot + deviation / number
    squares -= deviation * deviation / number
    total = tl.sum(count, 0)
    mean_of_all = tl.sum(mean * count, 0) / tl.maximum(total, 1.0)
    off = mean - mean_of_all[None, :]
    squares_of_all = tl.sum(squares + count * off * off, 0)
    size = tl.num_programs(0) * C
    partials += part * C + channels
    tl.store(partials, total, mask=is_channel)
    tl.store(partials + size, mean_of_all, mask=is_channel)
    tl.store(partials + 2 * size, squares_of_all, mask=is_channel)


@triton.jit
def _gradient_row(
    grad,
    y,
    row,
    first_column,
    channels,
    is_channel,
    constant,
    slope,
    C: tl.constexpr,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    COUNT: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """`COUNT` neighbouring columns of one row of the output's whole gradient, grad + constant + slope * y."""
    tiles = ()
    for index in tl.static_range(COUNT):
        column = first_column + index
        inside = ((row >= 0) & (row < OUT_H) & (column >= 0) & (column < OUT_W))[:, None]
        inside = inside & is_channel[None, :]
        place = (row * OUT_W + column)[:, None] * C + channels[None, :]
        value = tl.load(grad + place, mask=inside, other=0.0).to(DTYPE)
        value += constant + slope * tl.load(y + place, mask=inside, other=0.0).to(DTYPE)
        tiles = tiles + (tl.where(inside, value, 0.0),)
    return tiles


@triton.jit
def backward_kernel(
    x,
    weight,
    scale,
    shift,
    y,
    grad_y,
    constants,
    slopes,
    grad_x,
    partials,
    C: tl.constexpr,
    H: tl.constexpr,
    W: tl.constexpr,
    OUT_H: tl.constexpr,
    OUT_W: tl.constexpr,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    TOP: tl.constexpr,
    LEFT: tl.constexpr,
    NORMALISED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    STRIPS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Gradients of input, weight, scale and shift in one pass: x, y and grad_y are read once, grad_x is written.

    The gradient that arrives through the output's mean and variance is `constants + slopes * y` (a number per
    channel each), added to `grad_y` while it is loaded. Columns, strips and rows are the input's; a program does
    `ROWS * STRIDE` rows. Grid: as in `forward_kernel`. `partials` is (k^2 + 2, first size of the grid, C): the
    weight's gradient by tap, then shift's and scale's.
    """
    sums_dtype: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    groups: tl.constexpr = (W + STRIPS * COLUMNS - 1) // (STRIPS * COLUMNS)
    chunks: tl.constexpr = (H + ROWS * STRIDE - 1) // (ROWS * STRIDE)
    # Output rows, and columns for a strip, that see the input rows t * STRIDE + phase: from t + lowest to t + highest.
    lowest: tl.constexpr = -((K - 1 - TOP) // STRIDE)
    highest: tl.constexpr = (STRIDE - 1 + TOP) // STRIDE
    window: tl.constexpr = highest - lowest + 1
    leftmost: tl.constexpr = -((K - 1 - LEFT) // STRIDE)
    seen: tl.constexpr = (COLUMNS - 1 + LEFT) // STRIDE - leftmost + 1

    part = tl.program_id(0)
    image = (part // (groups * chunks)).to(tl.int64)
    first_step = (part // groups % chunks) * ROWS
    first_column = ((part % groups) * STRIPS + tl.arange(0, STRIPS)) * COLUMNS
    first_out = first_column // STRIDE + leftmost
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < C
    x += image * (H * W * C)
    grad_x += image * (H * W * C)
    y += image * (OUT_H * OUT_W * C)
    grad_y += image * (OUT_H * OUT_W * C)

    taps = _taps(weight, channels, is_channel, K, sums_dtype)
    if NORMALISED:
        factor = tl.load(scale + channels, mask=is_channel, other=0.0).to(sums_dtype)[None, :]
        offset = tl.load(shift + channels, mask=is_channel, other=0.0).to(sums_dtype)[None, :]
    constant = tl.load(constants + channels, mask=is_channel, other=0.0).to(sums_dtype)[None, :]
    slope = tl.load(slopes + channels, mask=is_channel, other=0.0).to(sums_dtype)[None, :]

    grads = ()
    for early in tl.static_range(window - 1):
        grads = grads + _gradient_row(
            grad_y, y, first_step + lowest + early, first_out, channels, is_channel, constant, slope,
            C, OUT_H, OUT_W, seen, sums_dtype,
        )  # fmt: skip
    weight_grads = _zeros(K * K, STRIPS, CHANNELS, sums_dtype)
    shift_grad = tl.zeros([STRIPS, CHANNELS], sums_dtype)
    scale_grad = tl.zeros([STRIPS, CHANNELS], sums_dtype)
    for step in range(ROWS):
        coarse = first_step + step
        rows = grads + _gradient_row(
            grad_y, y, coarse + highest, first_out, channels, is_channel, constant, slope,
            C, OUT_H, OUT_W, seen, sums_dtype,
        )  # fmt: skip
        for phase in tl.static_range(STRIDE):
            in_row = coarse * STRIDE + phase
            for column in tl.static_range(COLUMNS):
                in_column = first_column + column
                inside = ((in_row < H) & (in_column < W))[:, None] & is_channel[None, :]
                place = (in_row * W + in_column)[:, None] * C + channels[None, :]
                value = tl.load(x + place, mask=inside, other=0.0).to(sums_dtype)
                if NORMALISED:
                    before = value * factor + offset
                    active = tl.where(inside, _activated(before, ACTIVATION), 0.0)
                else:
                    active = value
                gradient = tl.zeros([STRIPS, CHANNELS], sums_dtype)
                for tap_row in tl.static_range(K):
                    for tap_column in tl.static_range(K):
                        if (phase + TOP - tap_row) % STRIDE == 0 and (
                            column + LEFT - tap_column
                        ) % STRIDE == 0:
                            arriving = rows[
                                ((phase + TOP - tap_row) // STRIDE - lowest) * seen
                                + (column + LEFT - tap_column) // STRIDE
                                - leftmost
                            ]
                            gradient += arriving * taps[tap_row * K + tap_column]
                            product = arriving * active
                            weight_grads = _with(
                                weight_grads,
                                tap_row * K + tap_column,
                                weight_grads[tap_row * K + tap_column] + product,
                            )
                if NORMALISED:
                    gradient = tl.where(inside, gradient * _slope(before, ACTIVATION), 0.0)
                    shift_grad += gradient
                    scale_grad += gradient * value
                    gradient = gradient * factor
                tl.store(grad_x + place, gradient.to(grad_x.dtype.element_ty), mask=inside)
        grads = rows[seen:]

    size = tl.num_programs(0) * C
    partials += part * C + channels
    for tap in tl.static_range(K * K):
        tl.store(partials + tap * size, tl.sum(weight_grads[tap], 0), mask=is_channel)
    tl.store(partials + K * K * size, tl.sum(shift_grad, 0), mask=is_channel)
    tl.store(partials + (K * K + 1) * size, tl.sum(scale_grad, 0), mask=is_channel)
