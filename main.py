"""NVIDIA's `main.py`: train a model, or validate it with `--evaluate`. The same as `effnet train`."""

import sys

from effnet.cli import main

if __name__ == "__main__":
    sys.exit(main(command="train", prog="main.py"))
