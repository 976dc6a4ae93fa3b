"""The decoding of JPEG and PNG files as the first part of an ONNX graph, by onnxruntime-extensions."""

from typing import Any

import numpy as np

from effnet.export.facts import INPUT
from effnet.export.packages import load_package
from effnet.export.session import EXTENSIONS

_PIXELS = "decoded_pixels"


def prepend_decoder(model: Any) -> None:
    """Let an `onnx.ModelProto` that takes uint8 (1, H, W, 3) take the bytes of an image file, uint8 (bytes,), in place.

    Colours come as blue, green and red. An orientation in EXIF is not applied.
    """
    onnx = load_package("onnx")
    graph, make = model.graph, onnx.helper.make_node
    for node in graph.node:
        node.input[:] = [_PIXELS if name == INPUT else name for name in node.input]
    nodes = [
        make("DecodeImage", [INPUT], ["decoded_bgr"], name="decode", domain=EXTENSIONS),
        make("Gather", ["decoded_bgr", "decoded_order"], ["decoded_rgb"], name="to_rgb", axis=2),
        make("Unsqueeze", ["decoded_rgb", "decoded_batch"], [_PIXELS], name="to_batch"),
    ]
    for node in reversed(nodes):
        graph.node.insert(0, node)
    constants = {"decoded_order": [2, 1, 0], "decoded_batch": [0]}
    for name, values in constants.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, dtype=np.int64), name))
    taken = onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, ["bytes"])
    graph.input[0].CopyFrom(taken)
    pixels = onnx.helper.make_tensor_value_info(_PIXELS, onnx.TensorProto.UINT8, [1, "height", "width", 3])
    graph.value_info.append(pixels)
    model.opset_import.append(onnx.helper.make_opsetid(EXTENSIONS, 1))
