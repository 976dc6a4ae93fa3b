"""NVIDIA's `multiproc.py`: start a script in several processes. It hands over to `torchrun`."""

import sys

from effnet.cli.multiproc import multiproc

if __name__ == "__main__":
    sys.exit(multiproc(sys.argv[1:]))
