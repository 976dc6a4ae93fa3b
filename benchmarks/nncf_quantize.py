"""Quantize an ONNX file by NNCF's defaults; run in an environment with NNCF and OpenVINO, not in effnet's.

python nncf_quantize.py MODEL.onnx IMAGES.npy QUANTIZED.xml
"""

import sys

import nncf
import numpy as np
import openvino


def main(source: str, images: str, quantized: str) -> None:
    """Quantize a file; the images are calibrated on one by one, normalised float32 (N, 3, H, W)."""
    batches = [image[None] for image in np.load(images)]
    model = openvino.Core().read_model(source)
    made = nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))
    openvino.save_model(made, quantized, compress_to_fp16=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
