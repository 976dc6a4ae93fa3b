"""ncnn: a program of `torch.export` to model.param and model.bin, and ncnn's logits.

to_ncnn.py convert PROGRAM PRECISION FOLDER
to_ncnn.py run FOLDER IMAGES FOUND
"""

import sys


def convert(program_file: str, precision: str, folder: str) -> None:
    """Write the network of a program that takes one image of floats."""
    import shutil
    import subprocess
    import tempfile
    from importlib.util import find_spec
    from pathlib import Path

    import torch

    program = torch.export.load(program_file)
    assert program.example_inputs is not None
    (image,), _ = program.example_inputs
    spec = find_spec("pnnx")
    assert spec is not None
    assert spec.origin is not None
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        # pnnx reads TorchScript.
        traced = torch.jit.trace(program.module(), (image,), check_trace=False)
        traced.save(f"{scratch}/model.pt")
        shape = ",".join(map(str, image.shape))
        half = int(precision == "fp16")
        pnnx = str(Path(spec.origin).with_name("pnnx"))
        command = [pnnx, "model.pt", f"inputshape=[{shape}]", f"fp16={half}"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"error: pnnx: {(done.stderr or done.stdout)[-300:]}")
        for suffix in ("param", "bin"):
            shutil.copyfile(f"{scratch}/model.ncnn.{suffix}", f"{folder}/model.{suffix}")


def run(folder: str, images_file: str, found_file: str) -> None:
    """Write the logits of images uint8 (N, H, W, 3), one after the other, with ncnn's own conversion of pixels."""
    import ncnn
    import numpy as np

    network = ncnn.Net()
    with open(f"{folder}/precision", encoding="utf-8") as file:
        half = file.read() == "fp16"
    # Some x86 processors convert tensors to FP16 as well unless told not to.
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = half
    if network.load_param(f"{folder}/model.param") or network.load_model(f"{folder}/model.bin"):
        sys.exit(f"error: ncnn can't load {folder}")
    found = []
    for image in np.load(images_file):
        height, width, _ = image.shape
        extractor = network.create_extractor()
        extractor.input("in0", ncnn.Mat.from_pixels(image, ncnn.Mat.PixelType.PIXEL_RGB, width, height))
        failed, logits = extractor.extract("out0")
        if failed:
            sys.exit("error: ncnn can't compute the network")
        found.append(np.array(logits))
    np.savez(found_file, logits=np.stack(found))


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(*sys.argv[2:])
    else:
        run(*sys.argv[2:])
