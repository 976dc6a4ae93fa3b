"""The one place that imports Triton (it comes with PyTorch's builds for GPUs)."""

import triton
import triton.language as tl

__all__ = ["tl", "triton"]
