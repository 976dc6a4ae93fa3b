"""`python -m benchmarks` in as little time as possible, for tests: one repetition, and small tensors for the rates."""

import sys

import benchmarks.ceilings
import effnet.kernels.choose
from benchmarks.commands import main

if __name__ == "__main__":
    effnet.kernels.choose.REPEATS = effnet.kernels.choose.WARMUP = 1
    benchmarks.ceilings.COPY_BYTES["cpu"] = 1 << 20
    benchmarks.ceilings.MATRIX_SIDE["cpu"] = 64
    sys.exit(main())
