"""The processes of a run: rank and device of this one, and collective operations over all of them."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from effnet.runtime.errors import ProcessLostError, UserError
from effnet.runtime.signals import ended_by_signals

T = TypeVar("T")
COLLECTIVE_TIMEOUT_S = 600.0
"""seconds that a collective operation waits for a process, where the settings do not say"""
_ANSWER_S = 3.0


@dataclass(frozen=True)
class Processes:
    """The processes of a run as `torchrun` starts them; a single one without it.

    Attributes:
        rank: number of this process among all, 0 for the one that writes.
        local_rank: number of this process on its machine.
        world_size: number of processes.
        local_world_size: number of processes on this machine.
        device: where this process computes.
    """

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    device: torch.device

    @classmethod
    def alone(cls, device: torch.device) -> "Processes":
        """Return a single process, without `torchrun`."""
        return cls(0, 0, 1, 1, device)

    @property
    def is_main(self) -> bool:
        """True for the process that prints and writes files."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum `values` elementwise over all processes, in place, and return it."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def max(self, values: Tensor) -> Tensor:
        """Take the elementwise maximum of `values` over all processes, in place, and return it."""
        if self.world_size > 1:
            dist.all_reduce(values, dist.ReduceOp.MAX)
        return values

    def merge(self, named: Mapping[str, str]) -> dict[str, str]:
        """Return the entries of all processes together, in every process."""
        return {name: value for each in self.gather(dict(named)) for name, value in each.items()}

    def gather(self, value: T) -> list[T]:
        """Return every process's value, by rank, in every process."""
        if self.world_size == 1:
            return [value]
        gathered = [value] * self.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    def collect(self, value: T) -> list[T]:
        """Return every process's value, by rank, in the main process, and nothing in the others.

        Args:
            value: tensors in it are on the CPU where there are several processes.
        """
        if self.world_size == 1:
            return [value]
        collected = [value] * self.world_size if self.is_main else None
        dist.gather_object(value, collected)
        return collected or []

    def average_buffers(self, model: nn.Module) -> None:
        """Replace BatchNorm's running statistics, which are local to each process, by their mean over all processes."""
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        if self.world_size > 1 and buffers:
            flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
            dist.all_reduce(flat)
            flat /= self.world_size
            parts = flat.split([buffer.numel() for buffer in buffers])
            torch._foreach_copy_(
                buffers, [part.view_as(buffer) for part, buffer in zip(parts, buffers, strict=True)]
            )

    def agree(self, value: object) -> bool:
        """Return True if every process has the same value, such as the epoch to start from."""
        return all(other == value for other in self.gather(value))

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            dist.barrier()


def data_parallel(
    step: nn.Module, *, bucket_size: float, accumulates: bool, starts: bool = True
) -> DistributedDataParallel:
    """Wrap a step so that gradients are averaged over the processes, bucket by bucket, during the backward pass.

    Args:
        step: returns the loss.
        bucket_size: megabytes in a bucket. Reducing the last bucket can't overlap with the backward pass, and PyTorch's
            default of 25 MB would hold all gradients of a small model.
        accumulates: some backward passes skip the reduction (`no_sync`), which a static graph does not allow.
        starts: take over the first process's weights and statistics.

    Returns:
        The wrapped step.
    """
    # BatchNorm's statistics stay local until validation averages them. PyTorch 2.14 renamed the argument.
    new_name = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    local_buffers: dict[str, Any] = {"forward_sync_buffers" if new_name else "broadcast_buffers": False}
    return DistributedDataParallel(
        step,
        **local_buffers,
        bucket_cap_mb=bucket_size,
        gradient_as_bucket_view=True,
        static_graph=not accumulates,
        init_sync=starts,
    )


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """Return the device for `auto`, `cuda` or `cpu`.

    Args:
        name: `auto` for a GPU if there is one, or `cuda` or `cpu`.
        local_rank: number of the process on its machine, which is that of its GPU.

    Raises:
        UserError: `cuda` on a machine without a GPU, or fewer GPUs than processes.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "--device cuda: PyTorch sees no GPU here; use --device cpu, or check the driver with nvidia-smi"
        )
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f"--device {name}: process {local_rank} has no GPU, there are {torch.cuda.device_count()}; "
            "start no more processes than GPUs"
        )
    return torch.device("cuda", local_rank)


_joined: Processes | None = None


@contextmanager
def joined_processes(device_name: str, *, timeout: float = COLLECTIVE_TIMEOUT_S) -> Iterator[Processes]:
    """Join the process group that `torchrun` started, if any, and leave it at the end of the block.

    Within another such block this yields the processes of that one, for several runs one after the other.

    Args:
        device_name: `auto`, `cuda` or `cpu`.
        timeout: seconds that a collective operation may wait for a process.

    Raises:
        UserError: a process has not come to a collective operation in time; it is named.
        ProcessLostError: another process has ended.
    """
    global _joined
    if _joined is not None:
        yield _joined
        return
    rank, local_rank, world_size, local_world_size = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_WORLD_SIZE", 1))
    )
    device = choose_device(device_name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    processes = Processes(rank, local_rank, world_size, local_world_size, device)
    if world_size == 1:
        yield processes
        return
    store = _join(device, timeout)
    try:
        _joined = processes
        yield processes
    except RuntimeError as error:
        if not _is_about_others(error):
            raise
        raise _explained(error, store, processes, timeout) from None
    finally:
        _joined = None
        if dist.is_initialized():
            dist.destroy_process_group()


def _join(device: torch.device, timeout: float) -> Any:
    """Join the process group, and return the store through which its processes have met.

    Raises:
        UserError: not all processes have come in time.
    """
    limit = timedelta(seconds=timeout)
    try:
        with ended_by_signals():
            store, rank, world_size = next(iter(dist.rendezvous("env://", timeout=limit)))
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=limit,
        )
    except dist.DistError as error:
        first = str(error).partition("\n")[0]
        raise UserError(
            f"the processes of the run have not met within {timeout:g} s (--collective-timeout): {first}"
        ) from None
    return store


def _is_about_others(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def _explained(error: RuntimeError, store: Any, processes: Processes, timeout: float) -> Exception:
    """Return what has gone wrong with other processes, in one line."""
    timed_out = "Timed out" in str(error)
    present = _waiting(store, processes, _ANSWER_S if timed_out else 0.0)
    if not timed_out:
        return ProcessLostError("another process of the run has ended")
    absent = [str(rank) for rank in range(processes.world_size) if rank not in present]
    if not absent:
        return ProcessLostError(
            f"the processes have lost each other after {timeout:g} s (--collective-timeout)"
        )
    return UserError(
        f"process {', '.join(absent)} of 0 to {processes.world_size - 1} did not come to a collective operation within "
        f"{timeout:g} s (--collective-timeout); see what it waits for, such as data that it can't read"
    )


def _waiting(store: Any, processes: Processes, patience: float) -> set[int]:
    """Return the processes that wait in a collective operation too.

    They meet the error at the same moment, and leave a key in the store.

    Args:
        store: through which the processes have met.
        processes: the processes of the run.
        patience: seconds to wait for the others' keys.
    """
    present = {processes.rank}
    # An error: the process that keeps the store has ended, or does not answer.
    with suppress(RuntimeError):
        store.set_timeout(timedelta(seconds=_ANSWER_S))
        store.set(f"effnet/waits/{processes.rank}", "")
        end = time.monotonic() + patience
        while len(present) < processes.world_size and time.monotonic() < end:
            time.sleep(0.1)
            present |= {rank for rank in range(processes.world_size) if store.check([f"effnet/waits/{rank}"])}
    return present
