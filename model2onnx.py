"""NVIDIA's `model2onnx.py`: a model as ONNX. `effnet export onnx` with the batch fixed at `-b`."""

import sys

from effnet.cli.model2onnx import model2onnx

if __name__ == "__main__":
    sys.exit(model2onnx(sys.argv[1:]))
