"""Engines that a quantized model can be made for, one row each.

A new one is a row here and its name in `effnet.recipe.choices.TargetName`; `effnet.quantization.placement` says which
tensors are quantized for it.
"""

from dataclasses import dataclass

from effnet.recipe.choices import TargetName
from effnet.runtime.registry import registry


@dataclass(frozen=True)
class Target:
    """The form of tensors and graph that an engine needs.

    Attributes:
        name: value of ``--target``.
        summary: form of the activations and why, for the documentation's table.
        asymmetric: activations are uint8 with a zero point; otherwise int8, symmetric. SiLU's outputs begin at -0.28: a
            symmetric range wastes almost half of its levels on values that do not occur (arXiv 2004.09602, appendix D).
        on_x86: it runs on x86 CPUs. Those without VNNI add two products of 8 bits in 16, which overflow, unless one
            factor has 7 bits: 2 * 255 * 63 < 2^15.
        opset: version of ONNX's operators, the newest that the oldest supported version of the engine reads; the
            graphs need nothing newer. None: it does not read ONNX.
    """

    name: str
    summary: str
    asymmetric: bool
    on_x86: bool
    opset: int | None = None


TARGETS = registry(
    TargetName,
    Target("tensorrt", "int8, symmetric: it accepts zero points of 0 only", False, False, opset=20),
    Target(
        "onnxruntime",
        "uint8 with a zero point: its convolutions of unsigned inputs use VNNI, those of signed ones are slow",
        True,
        True,
        opset=21,
    ),
    Target(
        "openvino",
        "uint8 with a zero point, which it folds into the convolution's bias",
        True,
        True,
        opset=21,
    ),
    Target(
        "litert", "int8 with a zero point, also of the logits: all operators are in integers", True, False
    ),
    Target("executorch", "the same: XNNPACK computes in integers where inputs and output are", True, False),
)
"""the registry, by the value of ``--target``"""
