"""The fake quantizer: nvidia-modelopt's `TensorQuantizer`, with zero points, and in the memory format of its input.

A float x becomes scale * (q - zero_point) with q = clamp(round(x / scale) + zero_point, -128, 127), as in ONNX's
QuantizeLinear and DequantizeLinear. What is stored is modelopt's: `_amax` = 127 * scale, and for an asymmetric range
`_bias_value` = -zero_point * scale, the value that modelopt subtracts before it quantizes symmetrically. As the bias is
a whole number of steps, zero is exact, which padding and ReLU need and engines require.

This is the one module that imports modelopt. Nothing imports it but a quantized model that is built.
"""

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from effnet.models.errors import ModelError
from effnet.models.rounding import HIGHEST, LOWEST, Grid, round_channels, round_to_grid

# It tells of each machine without CUDA when modelopt is imported.
_NO_CUDA_LOG = logging.getLogger("torch.utils.cpp_extension")
_NO_CUDA_LOG.addFilter(_filter := lambda record: False)
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from modelopt.torch.quantization.config import QuantizerAttributeConfig
        from modelopt.torch.quantization.nn import TensorQuantizer
except ImportError as error:
    raise ModelError(
        f"quantized models need nvidia-modelopt ({error}): pip install 'effnet[quantization]'"
    ) from None
finally:
    _NO_CUDA_LOG.removeFilter(_filter)

_SMALLEST_SCALE = 2.0**-40


class Quantizer(TensorQuantizer):
    """Simulates INT8 of a tensor, as a whole or by its first axis, in the forward pass; the gradient passes through
    within the range.

    Off, it does nothing and has no entries in the state dict. On, it has `_amax` (and `_bias_value` if the range is
    asymmetric), and quantizes once these are set: an `_amax` of 0 stands for a range not known yet.
    Loading its entries switches it on.

    The range of weights follows them in training; that of activations is fixed by calibration.

    Attributes:
        most: largest integer that a weight becomes, at most 127. With less, the range is wider than the weights: what
            is stored is the same, `_amax` = 127 * scale.

    Args:
        shape: of `_amax`: () for activations, (out, 1, 1, 1) or (out, 1) for weights.
        is_on: whether it quantizes.
    """

    _amax: Tensor
    _bias_value: Tensor

    def __init__(self, shape: tuple[int, ...] = (), *, is_on: bool = True) -> None:
        super().__init__(
            QuantizerAttributeConfig(num_bits=8, axis=0 if shape else None, narrow_range=bool(shape))
        )
        self.shape = shape
        self._grid: Grid | None = None
        self.has_range = False
        self.most = HIGHEST
        self.switch(is_on)

    @property
    def is_on(self) -> bool:
        """Whether it has a place in the state dict."""
        return hasattr(self, "_amax")

    @property
    def is_asymmetric(self) -> bool:
        """Whether its range has a zero point."""
        return hasattr(self, "_bias_value")

    @property
    def grid(self) -> Grid:
        """What it rounds to, for a quantizer of whole tensors whose range is known."""
        assert self._grid is not None
        return self._grid

    @property
    def only_rounds_to(self) -> Grid | None:
        """The grid, if rounding to it is all that it does at present: layers may do that together with other work."""
        return None if self._disabled or self._if_calib or not self._if_quant else self._grid

    @property
    def only_collects(self) -> bool:
        """Whether calibration looks at what it is given, and nothing else is done to it."""
        return not self._disabled and self._if_calib and not self._if_quant

    def collect_through(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
        """Let calibration see `function(inputs)`, which is computed for the values alone that it looks at.

        Args:
            function: monotone, of each value by itself.
            inputs: (N, C, ...).
        """
        self._calibrator.collect(inputs, function)

    def switch(self, is_on: bool, *, asymmetric: bool = False) -> None:
        """Switch on or off. A range that is known is kept where its kind stays the same."""
        wanted = {"_amax": is_on, "_bias_value": is_on and asymmetric and not self.shape}
        if [hasattr(self, name) for name in wanted] != list(wanted.values()):
            for name, is_wanted in wanted.items():
                if hasattr(self, name):
                    delattr(self, name)
                if is_wanted:
                    self.register_buffer(name, torch.zeros(self.shape))
            self._refresh()
        self._disabled = not is_on

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
        """Scale of each output channel, of `_amax`'s shape."""
        return (self._amax / HIGHEST).clamp_min(_SMALLEST_SCALE)

    def forward(self, inputs: Tensor) -> Tensor:
        """The input, rounded to the grid; of the same shape, dtype and memory format."""
        if self._disabled:
            return inputs
        if self._if_calib:
            self.collect(inputs)
        if not (self._if_quant and self.has_range):
            return inputs
        if not self.shape:
            return round_to_grid(inputs, self.grid)
        if self.training:
            self.follow(inputs)
        return round_channels(inputs, HIGHEST / self._amax.clamp_min(HIGHEST * _SMALLEST_SCALE))

    def _refresh(self) -> None:
        """Bring what is derived from the entries up to date."""
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
            return  # see `quantize_layers`
        if amax.numel() != max(1, int(torch.Size(self.shape).numel())):
            lists[-1].append(
                f"{prefix}_amax has {amax.numel()} numbers, not {torch.Size(self.shape).numel()}"
            )
            return
        self.switch(True, asymmetric=bias is not None)
        with torch.no_grad():
            self._amax.copy_(amax.reshape(self.shape))
            if bias is not None:
                self._bias_value.copy_(bias)
        self._refresh()

    def extra_repr(self) -> str:
        """Shown by ``print(model)``."""
        if not self.is_on:
            return "off"
        return (
            str(self._grid) if self._grid else f"by channel, shape {self.shape}" if self.shape else "no range"
        )


class _StandIn(nn.Module):
    """Takes a quantizer's place in a model that is exported, where layers leave all of its work to it."""

    only_rounds_to = None
    only_collects = False


class NoQuantizer(_StandIn, nn.Identity):
    """Stands where a quantizer is off."""

    is_on = False


class ExportedQuantizer(_StandIn):
    """A quantizer as PyTorch's own operator, which exporters translate into QuantizeLinear and DequantizeLinear.

    Args:
        quantizer: on, with a known range.
        unsigned: store activations as uint8 with the zero point moved by 128, which is the same arithmetic.
    """

    is_on = True
    scales: Tensor
    zero_points: Tensor

    def __init__(self, quantizer: Quantizer, *, unsigned: bool) -> None:
        super().__init__()
        self.by_channel = bool(quantizer.shape)
        if self.by_channel:
            scales = quantizer.channel_scales().flatten()
            zero_points = torch.zeros_like(scales, dtype=torch.int32)
            self.limits = (-HIGHEST, HIGHEST)
        else:
            shift = -LOWEST if unsigned else 0
            scales = torch.tensor(quantizer.grid.scale)
            zero_points = torch.tensor(quantizer.grid.zero_point + shift, dtype=torch.int32)
            self.limits = (LOWEST + shift, HIGHEST + shift)
        self.register_buffer("scales", scales)
        self.register_buffer("zero_points", zero_points)

    def forward(self, x: Tensor) -> Tensor:
        """The input, rounded to the grid."""
        if self.by_channel:
            return torch.fake_quantize_per_channel_affine(x, self.scales, self.zero_points, 0, *self.limits)
        return torch.fake_quantize_per_tensor_affine(x, self.scales, self.zero_points, *self.limits)
