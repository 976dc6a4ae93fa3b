"""Threads that compute PyTorch's operators without others."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch


def lone_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Start threads of which each computes PyTorch's operators alone.

    PyTorch gives each thread that computes a team of OpenMP's threads. These wait for each other, and with more of them
    than cores, GNU's OpenMP lets those of the whole process that wait sleep at once, which slows down a training.

    Args:
        count: threads.
        name: what their names begin with.
    """
    others = torch.get_num_threads()
    started = threading.Barrier(count + 1)
    pool = ThreadPoolExecutor(count, name, _be_alone, (started,))
    for _ in range(count):
        pool.submit(int)  # starts a thread, since the others are still at the barrier
    started.wait()
    torch.set_num_threads(others)
    return pool


def _be_alone(started: threading.Barrier) -> None:
    # With its first operator a thread takes over the process's number, so that comes first.
    torch.get_num_threads()
    torch.set_num_threads(1)
    started.wait()
