"""Runs a function in several processes that form a group, as `torchrun` would start them, without its start."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

from effnet.models.config import MODEL_CONFIGS, ModelConfig

# One process imports PyTorch, and its compiler, which every optimizer imports; the others are forked from it.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["effnet.training.run", "effnet.inference.evaluate", "torch._dynamo"])


def in_processes(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return the result of `function(*arguments)` in each of `count` processes, by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with CONTEXT.Pool(count) as pool:
        calls = [(rank, count, port, dict(MODEL_CONFIGS), function, arguments) for rank in range(count)]
        return pool.starmap_async(_call, calls, chunksize=1).get(timeout=300)


def started(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Start `function(*arguments)` in a process of its own, and return the process."""
    process = CONTEXT.Process(target=_call_alone, args=(dict(MODEL_CONFIGS), function, arguments))
    process.start()
    return process


def _call_alone(
    configs: dict[str, ModelConfig], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    MODEL_CONFIGS.update(configs)  # which a test may have made small
    function(*arguments)


def _call(
    rank: int,
    count: int,
    port: int,
    configs: dict[str, ModelConfig],
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> Any:
    import torch

    MODEL_CONFIGS.update(configs)  # which a test may have made small
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
