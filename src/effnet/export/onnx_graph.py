"""Simplification of the ONNX graphs that PyTorch's exporter writes."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from effnet.export.packages import load_package
from effnet.quantization.placement import MOST_REDUCED

Array = npt.NDArray[Any]


def tidy(model: Any) -> None:
    """Bring an `onnx.ModelProto` into the form that engines fuse best, in place.

    Means over height and width become GlobalAveragePool, which engines keep in their own layouts and which has an
    integer form. Weights between QuantizeLinear and DequantizeLinear are stored as integers. Constants that no
    operator reads, which onnxruntime warns of, and traces of the exporting machine are left out.
    """
    onnx = load_package("onnx")
    graph = model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in constants:
            constants[node.output[0]] = _integers(node, constants)
            graph.initializer.append(onnx.numpy_helper.from_array(constants[node.output[0]], node.output[0]))
            continue
        nodes += _pooled(onnx, node) if _is_spatial_mean(node, constants) else [node]
    for node in nodes:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    del graph.node[:]
    graph.node.extend(nodes)
    _drop_unused(graph)


def operators(model: Any) -> Counter[str]:
    """Count each operator in an `onnx.ModelProto`."""
    return Counter(node.op_type for node in model.graph.node)


def weight_bits(model: Any) -> int | None:
    """Return the bits that the integers of an `onnx.ModelProto`'s weights need, 7 or 8; None if it has none."""
    onnx = load_package("onnx")
    largest = [
        int(np.abs(onnx.numpy_helper.to_array(tensor).astype(np.int16)).max())
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]
    if not largest:
        return None
    return 7 if max(largest) <= MOST_REDUCED else 8


def quantized(values: Array, scale: Array, zero_point: Array, axis: int) -> Array:
    """Return ONNX's QuantizeLinear of an array, integers of the zero point's type.

    Args:
        values: floating point, any shape.
        scale: one number, or one for each index along `axis`.
        zero_point: integers of the scale's shape.
        axis: axis of the scale; negative counts from the end.
    """
    shape = [1] * values.ndim
    if scale.ndim:
        shape[axis] = -1
    limits = np.iinfo(zero_point.dtype)
    steps = np.rint(values / scale.reshape(shape)) + zero_point.reshape(shape).astype(np.float32)
    result: Array = np.clip(steps, limits.min, limits.max).astype(zero_point.dtype)
    return result


def _integers(node: Any, constants: Mapping[str, Array]) -> Array:
    values, scale, zero_point = (constants[name] for name in node.input)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    return quantized(values, scale, zero_point, axis)


def _is_spatial_mean(node: Any, constants: Mapping[str, Array]) -> bool:
    if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
        return False
    # The images have four axes, and so have all tensors up to the last mean.
    return sorted(int(axis) % 4 for axis in constants[node.input[1]].ravel()) == [2, 3]


def _pooled(onnx: Any, node: Any) -> list[Any]:
    keeps = next((attribute.i for attribute in node.attribute if attribute.name == "keepdims"), 1)
    if keeps:
        return [onnx.helper.make_node("GlobalAveragePool", [node.input[0]], node.output, name=node.name)]
    pooled = f"{node.output[0]}_pooled"
    return [
        onnx.helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=node.name),
        onnx.helper.make_node("Flatten", [pooled], node.output, name=f"{node.name}_flatten"),
    ]


def _drop_unused(graph: Any) -> None:
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    made = {name for node in graph.node for name in node.output}
    kept = [info for info in graph.value_info if info.name in made]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    for item in (*graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
