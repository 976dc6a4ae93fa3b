"""The reference's `quant_main.py`: quantization-aware training. The same as `effnet quantize`."""

import sys

from effnet.cli import main

if __name__ == "__main__":
    sys.exit(main(verb="quantize", prog="quant_main.py"))
