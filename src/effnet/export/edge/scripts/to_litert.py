"""LiteRT: a program of `torch.export` to a .tflite file and its logits, with the seconds of each batch.

to_litert.py convert PROGRAM FILE
to_litert.py run FILE IMAGES FOUND
"""

import os
import sys
import time


def convert(program_file: str, file: str) -> None:
    """Write a .tflite file."""
    import litert_torch
    import torch
    import torch.ao.quantization.fx._decomposed
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    program = torch.export.load(program_file)
    assert program.example_inputs is not None
    rounds = any("dequantize_per_tensor" in str(node.target) for node in program.graph.nodes)
    # The program brings its quantizers: this says only that operators between them compute in integers.
    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    config = QuantConfig(pt2e_quantizer=quantizer) if rounds else None
    litert_torch.convert(program.module(), program.example_inputs[0], quant_config=config).export(file)


def run(file: str, images_file: str, found_file: str) -> None:
    """Write the logits of images, a batch after the other."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file, num_threads=len(os.sched_getaffinity(0)))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    images = np.load(images_file)
    (scale, zero_point), (logit_scale, logit_zero_point) = taken["quantization"], given["quantization"]
    if scale and images.dtype == np.float32:
        images = np.clip(np.round(images / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    found, seconds = [], []
    for batch in images.reshape(-1, *taken["shape"]):
        begun = time.perf_counter()
        interpreter.set_tensor(taken["index"], batch)
        interpreter.invoke()
        found.append(interpreter.get_tensor(given["index"]))
        seconds.append(time.perf_counter() - begun)
    logits = np.concatenate(found)
    if logit_scale:
        logits = (logits.astype(np.float32) - logit_zero_point) * np.float32(logit_scale)
    np.savez(found_file, logits=logits, seconds=seconds)


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(*sys.argv[2:])
    else:
        run(*sys.argv[2:])
