"""Functions of autograd over the passes of `effnet.kernels.cpu_passes`: BatchNorm in training and what is around it."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from effnet.kernels import cpu_passes
from effnet.kernels.cpu_passes import NO_ACTIVATION, Incoming
from effnet.kernels.geometry import Geometry
from effnet.kernels.statistics import channel_elements

Statistics = tuple[Tensor, Tensor]
"""mean and biased variance of each channel of a batch, (C,), without gradients"""

_SMALL_MAP = 2  # pixels of a side, which kernels 5 wide reach with their inner weights alone


def normalised(x: Tensor, norm: nn.BatchNorm2d, activation: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Return act(BatchNorm(x)) and the batch's statistics, by which `norm` does not learn.

    Args:
        x: float32 (N, C, H, W) on the CPU.
        norm: in training.
        activation: one that the passes know.

    Returns:
        The activation, of x's shape; mean and biased variance, (C,), without gradients.
    """
    number = cpu_passes.activation_number(activation)
    out: tuple[Tensor, Tensor, Tensor] = _Normalised.apply(
        _ordered(x), norm.weight, norm.bias, norm.eps, number
    )
    return out


@dataclass(frozen=True)
class Filter:
    """A block between expansion and projection, but for its tensors.

    Attributes:
        geometry: of the depthwise convolution.
        activation: after both BatchNorms, and in squeeze-and-excitation.
        eps_before, eps_after: of the BatchNorms before and after the convolution.
        margin: weights at each side of the kernel that no image reaches.
    """

    geometry: Geometry
    activation: nn.Module
    eps_before: float
    eps_after: float
    margin: int = 0

    @property
    def number(self) -> int:
        """Of the activation."""
        number = cpu_passes.activation_number(self.activation)
        assert number is not None
        return number

    def cropped(self) -> "Filter":
        """Return the filter without the margin that kernels 5 wide have over images of at most 2 pixels."""
        sizes = self.geometry
        has_margin = (sizes.kernel, sizes.stride, sizes.top, sizes.left) == (5, 1, 2, 2)
        if not has_margin or max(sizes.height, sizes.width) > _SMALL_MAP:
            return self
        return replace(self, geometry=replace(sizes, kernel=3, top=1, left=1), margin=1)

    def crop(self, weight: Tensor) -> Tensor:
        """Return the weights, (C, 1, k, k), inside the margin."""
        inside = slice(self.margin, weight.shape[-1] - self.margin)
        return weight[:, :, inside, inside]

    def uncrop(self, grad: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of `weight` from that of what lies inside the margin."""
        whole = nn.functional.pad(grad, [self.margin] * 4).contiguous()
        # DDP wants the strides of the weight itself, also in its dimension of one.
        return whole.as_strided(weight.shape, weight.stride())


def filtered(
    x: Tensor,
    form: Filter,
    before: nn.BatchNorm2d | None,
    weight: Tensor,
    after: nn.BatchNorm2d,
    squeezing: tuple[Tensor, Tensor, Tensor, Tensor] | None,
) -> tuple[Tensor, Statistics, Statistics | None]:
    """Apply BatchNorm and activation, depthwise convolution, BatchNorm and activation, squeeze-and-excitation.

    Args:
        x: float32 (N, C, H, W) on the CPU.
        form: what is no tensor.
        before: in training; None for neither it nor the activation after it.
        weight: (C, 1, k, k).
        after: in training.
        squeezing: weight and bias of squeeze-and-excitation's two layers, or None.

    Returns:
        The output, (N, C, ceil(H / stride), ceil(W / stride)), and the batch's statistics at `after` and at `before`.
    """
    first = (None, None) if before is None else (before.weight, before.bias)
    out, *statistics = _Filtered.apply(
        form.cropped(), _ordered(x), *first, weight, after.weight, after.bias, *(squeezing or [None] * 4)
    )
    at_after, at_before = tuple(statistics[:2]), tuple(statistics[2:])
    return out, at_after, at_before or None


@dataclass(frozen=True)
class _Affine:
    """BatchNorm in training, as a scale and a shift of each channel, (C,)."""

    mean: Tensor
    deviation: Tensor
    """one over the standard deviation"""
    scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, statistics: Statistics, weight: Tensor, bias: Tensor, eps: float) -> "_Affine":
        mean, variance = statistics
        deviation = torch.rsqrt(variance + eps)
        scale = weight * deviation
        return cls(mean, deviation, scale, bias - mean * scale)

    def gradients(self, total: Tensor, product: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return BatchNorm's gradient from sums over its output's gradient.

        Args:
            total: sum of the gradient, (C,).
            product: sum of the gradient times x - mean, (C,).
            count: elements of each channel.

        Returns:
            Gradient of the weight (that of the bias is `total`), and the vectors of which constant + linear * x is the
            part of x's gradient that comes through mean and variance.
        """
        grad_weight = self.deviation * product
        linear = -self.scale * self.deviation * grad_weight / count
        return grad_weight, -self.scale * total / count - linear * self.mean, linear


@dataclass(frozen=True)
class _Gate:
    """Squeeze-and-excitation of a batch: what it was given and what its layers gave."""

    pooled: Tensor
    hidden: Tensor
    active: Tensor
    gate: Tensor

    @classmethod
    def of(cls, pooled: Tensor, activation: nn.Module, parameters: tuple[Tensor, ...]) -> "_Gate":
        squeeze, squeeze_bias, expand, expand_bias = parameters
        hidden = nn.functional.linear(pooled, squeeze, squeeze_bias)
        active = activation(hidden)
        return cls(pooled, hidden, active, nn.functional.linear(active, expand, expand_bias).sigmoid())

    def backward(
        self, grad: Tensor, activation: nn.Module, squeeze: Tensor, expand: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the gradients of `pooled` and of the four parameters."""
        grad = grad * self.gate * (1 - self.gate)
        with torch.enable_grad():
            hidden = self.hidden.detach().requires_grad_()
            (through,) = torch.autograd.grad(activation(hidden), hidden, grad @ expand)
        parameters = [through.t() @ self.pooled, through.sum(0), grad.t() @ self.active, grad.sum(0)]
        return through @ squeeze, parameters


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, activation: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = cpu_passes.moments(x)
        norm = _Affine.of((mean, variance), weight, bias, eps)
        ctx.save_for_backward(x, *vars(norm).values())
        ctx.activation = activation
        ctx.mark_non_differentiable(mean, variance)
        return cpu_passes.applied(x, norm.scale, norm.shift, None, activation), mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, *vectors = ctx.saved_tensors
        norm, grad = _Affine(*vectors), _ordered(grad)
        sums = cpu_passes.gradient_sums(grad, x, norm.mean, norm.scale, norm.shift, ctx.activation).sum(1)
        grad_weight, constant, linear = norm.gradients(sums[1], sums[3], channel_elements(x))
        grad_x = cpu_passes.applied_backward(
            grad, x, norm.scale, norm.shift, constant, linear, ctx.activation
        )
        return grad_x, grad_weight, sums[1], None, None


class _Filtered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: Filter, x: Tensor, *parameters: Any) -> tuple[Tensor, ...]:
        before_weight, before_bias, weight, after_weight, after_bias, *squeezing = parameters
        before, first = None, None
        if before_weight is not None:
            first = cpu_passes.moments(x)
            before = _Affine.of(first, before_weight, before_bias, form.eps_before)
        y, *found = cpu_passes.filtered(
            x, form.crop(weight), *_affine(before), form.geometry, _number(form, before)
        )
        second = (found[0], found[1])
        after = _Affine.of(second, after_weight, after_bias, form.eps_after)
        gate = None
        if squeezing[0] is not None:
            pooled = cpu_passes.pooled(y, after.scale, after.shift, form.number)
            gate = _Gate.of(pooled, form.activation, tuple(squeezing))
        out = cpu_passes.applied(
            y, after.scale, after.shift, None if gate is None else gate.gate, form.number
        )
        ctx.form = form
        ctx.save_for_backward(
            x, weight, y, *_tensors(after), *_tensors(before), *_tensors(gate), *squeezing[::2]
        )
        statistics = (*second, *(first or ()))
        ctx.mark_non_differentiable(*statistics)
        return out, *statistics

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, y, *vectors = ctx.saved_tensors
        form: Filter = ctx.form
        after, before = _Affine(*vectors[:4]), None if vectors[4] is None else _Affine(*vectors[4:8])
        gate = None if vectors[8] is None else _Gate(*vectors[8:12])
        grad = _ordered(grad)
        sums = cpu_passes.gradient_sums(grad, y, after.mean, after.scale, after.shift, form.number)
        total, product, pooled, squeezing = _through_gate(
            sums, gate, form, vectors[12:], y.shape[2] * y.shape[3]
        )
        after_weight, constant, linear = after.gradients(total, product, channel_elements(y))
        incoming = Incoming(
            *(y, grad, after.scale, after.shift, None if gate is None else gate.gate, pooled),
            *(constant, linear, form.number),
        )
        grad_x, grad_weight, through = cpu_passes.filtered_backward(
            x,
            form.crop(weight),
            *_affine(before),
            None if before is None else before.mean,
            form.geometry,
            incoming,
        )
        before_weight = before_bias = None
        if before is not None:
            before_bias = through[0]
            before_weight, constant, linear = before.gradients(through[0], through[1], channel_elements(x))
            through_norm = (before.scale, before.shift, constant, linear)
            cpu_passes.applied_backward(grad_x, x, *through_norm, NO_ACTIVATION, out=grad_x)
        grad_weight = form.uncrop(grad_weight, weight)
        return None, grad_x, before_weight, before_bias, grad_weight, after_weight, total, *squeezing


def _through_gate(
    sums: Tensor, gate: _Gate | None, form: Filter, layers: list[Tensor], pixels: int
) -> tuple[Tensor, Tensor, Tensor | None, list[Any]]:
    """Go back through the gate, given the sums of `cpu_passes.gradient_sums`.

    Returns:
        The sums of the gradient before the activation, and of its product with y - mean, (C,); what each pixel of the
        activation gets through the means of its image, (N, C); the gradients of the gate's parameters.
    """
    if gate is None:
        return sums[1].sum(0), sums[3].sum(0), None, [None] * 4
    grad, parameters = gate.backward(sums[0], form.activation, *layers)
    pooled = grad / pixels
    total, product = (gate.gate * sums[1:4:2] + pooled * sums[2:5:2]).sum(1)
    return total, product, pooled, parameters


def _number(form: Filter, before: _Affine | None) -> int:
    return NO_ACTIVATION if before is None else form.number


def _affine(norm: _Affine | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if norm is None else (norm.scale, norm.shift)


def _tensors(of: _Affine | _Gate | None) -> list[Tensor | None]:
    return [None] * 4 if of is None else list(vars(of).values())


def _ordered(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
