"""NVIDIA's `launch.py`: a published recipe by its parts. The same as `effnet train --recipe NAME`."""

import sys

from effnet.cli.launch import launch

if __name__ == "__main__":
    sys.exit(launch(sys.argv[1:]))
