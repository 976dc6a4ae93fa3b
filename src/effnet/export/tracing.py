"""The tracing of a module as an ONNX graph, by PyTorch's exporter."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from effnet.export.facts import INPUT

# (lowest, highest) integer of a fake quantizer to the type that stores it.
_INTEGERS = {(0, 255): torch.uint8, (-128, 127): torch.int8, (-127, 127): torch.int8}


def trace(
    graph: nn.Module, example: Tensor, *, opset: int, open_sizes: Mapping[int, Any], outputs: Sequence[str]
) -> Any:
    """Return the `onnx.ModelProto` of a module with one input, ``images``.

    Args:
        graph: the module, in evaluation mode.
        example: an input.
        opset: version of ONNX's operators.
        open_sizes: `torch.export.Dim` of each axis of the input whose size is left open.
        outputs: names of the outputs.
    """
    with warnings.catch_warnings(), torch.no_grad(), _IntegerQuantizers(opset):
        warnings.simplefilter("ignore")  # PyTorch's exporter warns of its own deprecations
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=(dict(open_sizes),) if open_sizes else None,
            input_names=[INPUT],
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


class _IntegerQuantizers(TorchFunctionMode):
    """Traces fake quantizers as ONNX's own pair of operators, whose shapes `torch.export` knows."""

    def __init__(self, opset: int) -> None:
        super().__init__()
        self.opset = opset

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.fake_quantize_per_tensor_affine:
            return self._pair(*args, **(kwargs or {}))
        if func is torch.fake_quantize_per_channel_affine:
            return self._pair_per_channel(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _pair_per_channel(
        self, input: Tensor, scale: Tensor, zero_point: Tensor, axis: int, quant_min: int, quant_max: int
    ) -> Tensor:
        return self._pair(input, scale, zero_point, quant_min, quant_max, {"axis": axis})

    def _pair(
        self,
        input: Tensor,
        scale: Tensor | float,
        zero_point: Tensor | int,
        quant_min: int,
        quant_max: int,
        attributes: dict[str, Any] | None = None,
    ) -> Tensor:
        integers = _INTEGERS[quant_min, quant_max]
        scale = torch.as_tensor(scale, dtype=input.dtype)
        zero_point = torch.as_tensor(zero_point).to(integers)
        values = self._operator("QuantizeLinear", (input, scale, zero_point), attributes, integers)
        return self._operator("DequantizeLinear", (values, scale, zero_point), attributes, input.dtype)

    def _operator(
        self, name: str, inputs: Sequence[Tensor], attributes: dict[str, Any] | None, dtype: torch.dtype
    ) -> Tensor:
        result: Tensor = torch.onnx.ops.symbolic(
            name, inputs, attributes or {}, dtype=dtype, shape=inputs[0].shape, version=self.opset
        )
        return result
