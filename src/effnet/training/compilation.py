"""Compilation of the training step: its cache, CUDA graphs, and a count of recompilations.

CUDA graphs have been written against the documentation and have not run on a GPU yet.
"""

import os

import torch
from torch import nn

from effnet.recipe import ComputeSettings
from effnet.runtime.cache import writable_cache
from effnet.runtime.errors import UserError


def takes_cuda_graphs(compute: ComputeSettings, device: torch.device, world_size: int) -> bool:
    """Return True if steps are to be replayed as CUDA graphs: all kernels of a step with one launch.

    Args:
        compute: `compile` and `cuda_graphs`.
        device: the run's.
        world_size: processes of the run. DistributedDataParallel's communication is started by hooks between
            kernels, so that ``auto`` takes graphs only where there is none.

    Raises:
        UserError: they are asked for without compilation or without a GPU.
    """
    possible = compute.compile and device.type == "cuda"
    if compute.cuda_graphs == "on" and not possible:
        raise UserError("--cuda-graphs on needs --compile and a GPU")
    return possible and compute.cuda_graphs != "off" and (compute.cuda_graphs == "on" or world_size == 1)


def compiled(step: nn.Module, *, cuda_graphs: bool, sizes: int = 1) -> nn.Module:
    """Return `step`, to be compiled at its first call; the code is cached for later runs in `cache_dir`.

    Where that can't be written, it is cached in PyTorch's own folder.

    Args:
        step: the training step.
        cuda_graphs: replay it as a CUDA graph.
        sizes: sizes of image that it will see, for each of which it is compiled again.
    """
    if sizes > 1:
        limit = torch._dynamo.config.recompile_limit
        torch._dynamo.config.recompile_limit = max(limit, limit + sizes)
    if torch.are_deterministic_algorithms_enabled():
        torch._inductor.config.deterministic = True  # kernels chosen without measuring them
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ and (folder := writable_cache("compiled")) is not None:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    made: nn.Module = torch.compile(
        step, mode="reduce-overhead" if cuda_graphs else None, dynamic=False if sizes > 1 else None
    )  # type: ignore[assignment]
    return made


class Recompilations:
    """Count of compilations after the first; there should be none unless the size of the images changes."""

    def __init__(self) -> None:
        self._seen: int | None = None

    def since_last_time(self) -> int:
        """Return the graphs compiled since the last call; the first call returns 0."""
        # PyTorch counts this for its own statistics and has no public name for it.
        graphs = int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        before, self._seen = self._seen, graphs
        return 0 if before is None else graphs - before
