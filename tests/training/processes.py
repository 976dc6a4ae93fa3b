"""Runs a function in several processes that form a group, as `torchrun` would start them, without its start."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

# One process imports PyTorch, and its compiler, which every optimizer imports; the others are forked from it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["effnet.training.run", "effnet.inference.evaluate", "torch._dynamo"])


def in_processes(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return the result of `function(*arguments)` in each of `count` processes, by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with CONTEXT.Pool(count) as pool:
        calls = [(rank, count, port, function, arguments) for rank in range(count)]
        return pool.starmap_async(_call, calls, chunksize=1).get(timeout=300)


def _call(rank: int, count: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    import torch

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return function(*arguments)
