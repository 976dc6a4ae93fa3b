"""The compiled training step: where its code is kept, CUDA graphs, and a word when it has to be compiled again.

CUDA graphs have been written against the documentation and have not run on a GPU yet.
"""

import os

import torch
from torch import nn

from effnet.recipe import ComputeSettings
from effnet.runtime.cache import cache_dir
from effnet.runtime.errors import UserError


def takes_cuda_graphs(compute: ComputeSettings, device: torch.device, world_size: int) -> bool:
    """Whether steps are to be replayed as CUDA graphs: all kernels of a step for the price of one launch.

    Args:
        compute: `compile` and `cuda_graphs`.
        device: the run's.
        world_size: processes of the run. DistributedDataParallel's communication is started by hooks between
            kernels, so that ``auto`` takes graphs only where there is none.

    Raises:
        UserError: they are asked for and can't be had.
    """
    possible = compute.compile and device.type == "cuda"
    if compute.cuda_graphs == "on" and not possible:
        raise UserError("--cuda-graphs on needs --compile and a GPU")
    return possible and compute.cuda_graphs != "off" and (compute.cuda_graphs == "on" or world_size == 1)


def compiled(step: nn.Module, *, cuda_graphs: bool) -> nn.Module:
    """`step`, to be compiled when it is first called; the code is kept for later runs in `cache_dir`."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "compiled"))
    made: nn.Module = torch.compile(step, mode="reduce-overhead" if cuda_graphs else None)  # type: ignore[assignment]
    return made


class Recompilations:
    """Notices that something was compiled after the first time, when nothing should be: shapes do not change."""

    def __init__(self) -> None:
        self._seen: int | None = None

    def since_last_time(self) -> int:
        """Graphs compiled since the last call; 0 in the first, which has seen what compilation there must be."""
        # A count that PyTorch keeps for its own statistics; it has no other name for it.
        graphs = int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        before, self._seen = self._seen, graphs
        return 0 if before is None else graphs - before
