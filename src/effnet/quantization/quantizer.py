"""The fake quantizer: INT8 arithmetic simulated in floating point.

A float x becomes scale * (q - zero_point) with q = clamp(round(x / scale) + zero_point, -128, 127), as in ONNX's
QuantizeLinear and DequantizeLinear. Its entries in a state dict are those of NVIDIA's quantized models: `_amax` =
127 * scale, and for an asymmetric range `_bias_value` = -zero_point * scale (nvidia-modelopt's name). As the bias is a
whole number of steps, zero is exact, which padding and ReLU need and engines require.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from effnet.quantization.rounding import HIGHEST, LOWEST, Grid, round_channels, round_to_grid

_SMALLEST_SCALE = 2.0**-40


class Observer(Protocol):
    """An observer of a quantizer's input during calibration."""

    def collect(self, x: Tensor, function: Callable[[Tensor], Tensor] | None = None) -> None:
        """Look at a tensor (N, C, ...), or at a monotone function of its values."""


class Quantizer(nn.Module):
    """Simulation of INT8 for a tensor as a whole, or by its first axis; the gradient passes within the range.

    Off, it does nothing and has no entries in the state dict. On, it has `_amax` (and `_bias_value` if the range is
    asymmetric), and rounds once these are set: an `_amax` of 0 stands for a range not known yet. Loading its entries
    switches it on. The range of weights follows them in training; that of activations is fixed by calibration.

    Args:
        shape: of `_amax`: () for activations, (out, 1, 1, 1) or (out, 1) for weights.
        is_on: whether it quantizes.

    Attributes:
        observer: looks at each input, for calibration; None for none.
        rounds: whether inputs are rounded; calibration looks at a network that runs in float.
        most: largest integer that a weight becomes, at most 127. With less, the range is wider than the weights: what
            is stored is the same, `_amax` = 127 * scale.
    """

    _amax: Tensor
    _bias_value: Tensor

    def __init__(self, shape: tuple[int, ...] = (), *, is_on: bool = True) -> None:
        super().__init__()
        self.shape = shape
        self.observer: Observer | None = None
        self.rounds = True
        self.most = HIGHEST
        self.has_range = False
        self._grid: Grid | None = None
        self.switch(is_on)

    @property
    def is_on(self) -> bool:
        """True if it quantizes; it then has entries in the state dict."""
        return hasattr(self, "_amax")

    @property
    def is_asymmetric(self) -> bool:
        """True if its range has a zero point."""
        return hasattr(self, "_bias_value")

    @property
    def grid(self) -> Grid:
        """Values that it rounds to; only for a quantizer of whole tensors with a known range."""
        assert self._grid is not None
        return self._grid

    @property
    def only_rounds_to(self) -> Grid | None:
        """The grid if the quantizer does nothing but round to it, so that a layer may fuse that; else None."""
        return self._grid if self.is_on and self.rounds and self.observer is None else None

    @property
    def only_observes(self) -> bool:
        """True while calibration observes its input and the input is not rounded."""
        return self.is_on and self.observer is not None and not self.rounds

    def observe_through(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
        """Let calibration observe `function(inputs)`, which is computed for the sampled values only.

        Args:
            function: monotone, of each value by itself.
            inputs: (N, C, ...).
        """
        assert self.observer is not None
        self.observer.collect(inputs, function)

    def switch(self, is_on: bool, *, asymmetric: bool = False) -> None:
        """Switch on or off. A range that is known is kept where its kind stays the same."""
        wanted = {"_amax": is_on, "_bias_value": is_on and asymmetric and not self.shape}
        if [hasattr(self, name) for name in wanted] == list(wanted.values()):
            return
        for name, is_wanted in wanted.items():
            if hasattr(self, name):
                delattr(self, name)
            if is_wanted:
                self.register_buffer(name, torch.zeros(self.shape))
        self._refresh()

    def set_range(self, low: float, high: float) -> None:
        """Cover [low, high], which is widened to hold 0; a symmetric quantizer covers [-m, m] with m the larger one."""
        low, high = min(low, 0.0), max(high, 0.0)
        if self.is_asymmetric:
            scale = max((high - low) / (HIGHEST - LOWEST), _SMALLEST_SCALE)
            zero_point = round(LOWEST - low / scale)
            self._bias_value.fill_(-zero_point * scale)
        else:
            scale = max(high, -low, HIGHEST * _SMALLEST_SCALE) / HIGHEST
        self._amax.fill_(HIGHEST * scale)
        self._refresh()

    def follow(self, weight: Tensor) -> None:
        """Cover the largest weight of each output channel."""
        largest = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
        self._amax.copy_(largest * (HIGHEST / self.most))
        self.has_range = True

    def channel_scales(self) -> Tensor:
        """Return the scale of each output channel, of `_amax`'s shape."""
        return (self._amax / HIGHEST).clamp_min(_SMALLEST_SCALE)

    def forward(self, inputs: Tensor) -> Tensor:
        """Round the input to the grid; the output has its shape, dtype and memory format."""
        if not self.is_on:
            return inputs
        if self.observer is not None:
            self.observer.collect(inputs)
        if not (self.rounds and self.has_range):
            return inputs
        if not self.shape:
            return round_to_grid(inputs, self.grid)
        if self.training:
            self.follow(inputs)
        return round_channels(inputs, HIGHEST / self._amax.clamp_min(HIGHEST * _SMALLEST_SCALE))

    def _refresh(self) -> None:
        """Update the attributes that are derived from the state dict's entries."""
        self._grid, self.has_range = None, False
        if not self.is_on or self._amax.is_meta:
            return
        self.has_range = float(self._amax.max()) > 0
        if self.has_range and not self.shape:
            # In float32, by PyTorch's division: NVIDIA's implementation rounds in these very steps.
            scale = 1 / float(HIGHEST / self._amax)
            bias = float(self._bias_value) if self.is_asymmetric else 0.0
            self._grid = Grid(scale, round(-bias / scale))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, metadata: Any, strict: bool, *lists: list[str]
    ) -> None:
        amax, bias = (state_dict.get(prefix + name) for name in ("_amax", "_bias_value"))
        if amax is None:
            return  # see `effnet.quantization.model.quantize`
        wanted = torch.Size(self.shape).numel()
        if amax.numel() != wanted:
            lists[-1].append(f"{prefix}_amax has {amax.numel()} elements, not {wanted}")
            return
        self.switch(True, asymmetric=bias is not None)
        with torch.no_grad():
            self._amax.copy_(amax.reshape(self.shape))
            if bias is not None:
                self._bias_value.copy_(bias)
        self._refresh()

    def extra_repr(self) -> str:
        """Return what ``print(model)`` shows."""
        if not self.is_on:
            return "off"
        if self.shape:
            return f"by channel, shape {self.shape}"
        return str(self._grid) if self._grid else "no range"
