"""NVIDIA's `checkpoint2model.py`: pure weights of a checkpoint. The same as `effnet export weights`."""

import sys

from effnet.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", "weights", *sys.argv[1:]], prog="checkpoint2model.py"))
