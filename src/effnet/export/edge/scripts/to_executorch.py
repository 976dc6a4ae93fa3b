"""ExecuTorch: a program of `torch.export` to a .pte file for XNNPACK and its logits, with the seconds of each batch.

to_executorch.py convert PROGRAM FILE
to_executorch.py run FILE IMAGES FOUND
"""

import sys
import time


def convert(program_file: str, file: str) -> None:
    """Write a .pte file."""
    import torch
    import torch.ao.quantization.fx._decomposed
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.load(program_file)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    with open(file, "wb") as written:
        lowered.to_executorch().write_to_file(written)


def run(file: str, images_file: str, found_file: str) -> None:
    """Write the logits of images, a batch after the other."""
    import numpy as np
    import torch
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(file).load_method("forward")
    assert method is not None
    images = torch.from_numpy(np.load(images_file))
    shape = method.metadata.input_tensor_meta(0).sizes()
    found, seconds = [], []
    for batch in images.reshape(-1, *shape):
        begun = time.perf_counter()
        found.append(method.execute([batch])[0].numpy().copy())
        seconds.append(time.perf_counter() - begun)
    np.savez(found_file, logits=np.concatenate(found), seconds=seconds)


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(*sys.argv[2:])
    else:
        run(*sys.argv[2:])
