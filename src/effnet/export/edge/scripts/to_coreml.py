"""Core ML: a program of `torch.export` to an .mlpackage, and the logits that its operators define.

to_coreml.py convert PROGRAM FACTS PACKAGE
to_coreml.py run PACKAGE IMAGES FOUND

`run` computes with Core ML on a Mac. Elsewhere it computes the package's operators one by one in PyTorch.
"""

import json
import sys
import time


def convert(program_file: str, facts_file: str, package: str) -> None:
    """Write a package that takes an RGB image; the facts are `precision` and `metadata`, text by key."""
    import coremltools as ct
    import torch
    import torch.ao.quantization.fx._decomposed

    with open(facts_file, encoding="utf-8") as file:
        facts = json.load(file)
    program = torch.export.load(program_file).run_decompositions({})
    assert program.example_inputs is not None
    (example,), _ = program.example_inputs
    model = ct.convert(
        program,
        inputs=[ct.ImageType(name="images", shape=tuple(example.shape), color_layout=ct.colorlayout.RGB)],
        outputs=[ct.TensorType(name="logits", dtype=float)],
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT16 if facts["precision"] == "fp16" else ct.precision.FLOAT32,
        skip_model_load=True,
    )
    model.short_description = facts["description"]
    model.user_defined_metadata.update(facts["metadata"])
    model.save(package)


def run(package: str, images_file: str, found_file: str) -> None:
    """Write the logits of images uint8 (N, H, W, 3), one after the other."""
    import numpy as np

    images = np.load(images_file)
    answer = _by_core_ml(package) if sys.platform == "darwin" else _by_operators(package)
    found, seconds = [], []
    for image in images:
        begun = time.perf_counter()
        found.append(answer(image))
        seconds.append(time.perf_counter() - begun)
    np.savez(found_file, logits=np.concatenate(found), seconds=seconds)


def _by_core_ml(package):  # type: ignore[no-untyped-def]  # of packages that mypy does not see
    import coremltools as ct
    from PIL import Image

    model = ct.models.MLModel(package)
    return lambda image: model.predict({"images": Image.fromarray(image)})["logits"]


def _by_operators(package):  # type: ignore[no-untyped-def]
    """Return a function of an image that computes each operator as Core ML's documentation defines it."""
    import numpy as np
    import torch
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.models.utils import load_spec

    weights = f"{package}/Data/com.apple.CoreML/weights"
    spec = load_spec(package)
    program = load(spec, spec.specificationVersion, weights)
    (main,) = program.functions.values()
    (output,) = main.outputs
    operators = _operators()
    constants = {}

    def value_of(variable, values):  # type: ignore[no-untyped-def]
        if variable.name in values:
            return values[variable.name]
        if variable.name not in constants:
            value = variable.val
            if value is None:
                value = variable.op.materialized_val_inference()
            is_number = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf"
            constants[variable.name] = torch.as_tensor(value) if is_number else value
        return constants[variable.name]

    def answer(image):  # type: ignore[no-untyped-def]
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        values = {"images": pixels}
        for op in main.operations:
            if op.op_type == "const" or op.op_type.startswith("constexpr"):
                continue
            given = {key: value_of(taken, values) for key, taken in op.inputs.items() if taken is not None}
            if op.op_type not in operators:
                raise NotImplementedError(f"error: {op.op_type} is no operator that this script computes")
            computed = operators[op.op_type](**given)
            # Sums are in FP32; what is stored has the type that the package says.
            values[op.outputs[0].name] = _stored(computed, op.outputs[0])
        return values[output.name].float().numpy()

    return answer


def _stored(value, variable):  # type: ignore[no-untyped-def]
    import torch
    from coremltools.converters.mil.mil import types

    kinds = {
        types.fp16: torch.float16,
        types.fp32: torch.float32,
        types.int8: torch.int8,
        types.uint8: torch.uint8,
    }
    kind = kinds[variable.dtype]
    assert tuple(value.shape) == tuple(variable.shape), (variable.name, value.shape, variable.shape)
    return value.to(kind).float() if kind.is_floating_point else value.to(kind)


def _operators():  # type: ignore[no-untyped-def]
    """Return the operators of EfficientNet's packages by name, as functions of their inputs."""
    import torch
    import torch.nn.functional as F

    def conv(x, weight, strides, pad_type, pad, dilations, groups, bias=None):  # type: ignore[no-untyped-def]
        top, bottom, left, right = {"valid": [0] * 4, "custom": [int(one) for one in pad]}[pad_type]
        x = F.pad(x, (left, right, top, bottom))
        bias = None if bias is None else bias.float()
        return F.conv2d(x, weight.float(), bias, strides.tolist(), 0, dilations.tolist(), int(groups))

    def pad(x, pad, mode, constant_val):  # type: ignore[no-untyped-def]
        assert mode == "constant"
        pairs = pad.reshape(-1, 2).tolist()
        return F.pad(x, [one for pair in reversed(pairs) for one in pair], value=float(constant_val))

    def quantize(input, scale, output_dtype, zero_point=0):  # type: ignore[no-untyped-def]
        low, high = {"int8": (-128, 127), "uint8": (0, 255)}[output_dtype]
        return (torch.round(input / float(scale)) + int(zero_point)).clamp(low, high)

    def dequantize(input, scale, zero_point=0, axis=None):  # type: ignore[no-untyped-def]
        assert axis is None
        return (input.float() - int(zero_point)) * float(scale)

    return {
        "conv": conv,
        "pad": pad,
        "quantize": quantize,
        "dequantize": dequantize,
        "cast": lambda x, dtype: x,  # which storing does
        "batch_norm": lambda x, mean, variance, gamma, beta, epsilon: F.batch_norm(
            x, mean.float(), variance.float(), gamma.float(), beta.float(), eps=float(epsilon)
        ),
        "clip": lambda x, alpha, beta: x.clamp(float(alpha), float(beta)),
        "relu6": lambda x: x.clamp(0, 6),
        "relu": lambda x: x.clamp(min=0),
        "add": lambda x, y: x + y.float(),
        "mul": lambda x, y: x * y.float(),
        "sigmoid": lambda x: x.sigmoid(),
        "silu": lambda x: F.silu(x),
        "reduce_mean": lambda x, axes, keep_dims: x.mean(axes.tolist(), keepdim=bool(keep_dims)),
        "reshape": lambda x, shape: x.reshape(shape.tolist()),
        "squeeze": lambda x, axes: x.squeeze(tuple(axes.tolist())),
        "linear": lambda x, weight, bias=None: F.linear(
            x, weight.float(), None if bias is None else bias.float()
        ),
    }


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(*sys.argv[2:])
    else:
        run(*sys.argv[2:])
