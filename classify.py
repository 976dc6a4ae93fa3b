"""NVIDIA's `classify.py`: what is in a photograph. The same as `effnet classify`."""

import sys

from effnet.cli import main

if __name__ == "__main__":
    sys.exit(main(command="classify", prog="classify.py"))
