"""NVIDIA's `quant_main.py`: quantize, train and validate a model. The same as `effnet quantize`."""

import sys

from effnet.cli import main

if __name__ == "__main__":
    sys.exit(main(command="quantize", prog="quant_main.py"))
