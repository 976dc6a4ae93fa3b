"""The reference's `model2onnx.py`: a model as ONNX. The same as `effnet export onnx`."""

import sys

from effnet.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", "onnx", *sys.argv[1:]], prog="model2onnx.py"))
