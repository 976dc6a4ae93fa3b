"""CPU affinity: bind each process to cores near its GPU, so that it uses memory of the same NUMA node.

`cores_of` chooses the cores on any described machine; `bind_process` describes this machine and binds the process.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from effnet.runtime.errors import UserError

T = TypeVar("T")

_SYSTEM = Path("/sys/devices/system")


@dataclass(frozen=True)
class Topology:
    """Cores of a machine. Cores are numbered by hardware thread, as in the Linux kernel's lists.

    Attributes:
        sockets: for each local rank, the cores of the NUMA node that its GPU is attached to.
        physical: hardware threads of each physical core.
    """

    sockets: Sequence[frozenset[int]]
    physical: Sequence[frozenset[int]]

    def physical_cores(self, local_rank: int) -> list[set[int]]:
        """Return the physical cores of a process's socket, in the order of their first hardware thread."""
        parts = (set(threads & self.sockets[local_rank]) for threads in self.physical)
        return sorted(filter(None, parts), key=min)

    def sharing(self, local_rank: int) -> list[int]:
        """Return the local ranks of the processes on the socket of `local_rank`, itself included, in order."""
        mine = self.sockets[local_rank]
        return [rank for rank, cores in enumerate(self.sockets) if cores & mine]


def cores_of(mode: str, local_rank: int, topology: Topology) -> set[int]:
    """Return the cores for a process in one of the modes of NVIDIA's `--gpu-affinity`.

    Args:
        mode: ``socket``, ``socket_single``, ``socket_single_unique``, ``socket_unique_interleaved`` or
            ``socket_unique_contiguous``.
        local_rank: the process's number on the machine.
        topology: the machine.

    Returns:
        Hardware threads: all of each physical core, or, with fewer physical cores than processes, a part of them.

    Raises:
        UserError: more processes share the socket than it has cores, in a mode with separate cores for each.
    """
    cores = topology.physical_cores(local_rank)
    if mode == "socket":
        return set().union(*cores)
    if mode == "socket_single":
        return cores[0]
    processes = topology.sharing(local_rank)
    position = processes.index(local_rank)
    if len(cores) < len(processes):
        cores = [{core} for core in sorted(set().union(*cores))]
    if len(cores) < len(processes):
        raise UserError(
            f"--gpu-affinity {mode}: {len(processes)} processes share {len(cores)} cores of a NUMA node; "
            "start fewer processes, or use --gpu-affinity socket"
        )
    if mode == "socket_single_unique":
        return cores[position]
    if mode == "socket_unique_interleaved":
        return set().union(*cores[position :: len(processes)])
    return set().union(*share_of_cores(cores, position, len(processes)))


def bind_process(mode: str, device: torch.device, local_rank: int, local_world_size: int) -> None:
    """Bind this process and the workers that it starts to cores.

    `auto` binds to the cores of the GPU's NUMA node. Without GPUs, several processes divide the cores evenly, NUMA node
    by NUMA node, and a single process is not bound. In the other modes processes without GPUs are distributed evenly
    over the NUMA nodes. Nothing happens on a system without CPU affinity.

    Args:
        mode: `none`, `auto`, or a mode of `cores_of`.
        device: where the process computes.
        local_rank: its number on this machine.
        local_world_size: processes on this machine.

    Raises:
        UserError: as for `cores_of`.
    """
    if mode == "none" or not hasattr(os, "sched_setaffinity"):
        return
    allowed = os.sched_getaffinity(0)
    if mode == "auto":
        cores = _cores_in_auto(device, local_rank, local_world_size, allowed)
    else:
        cores = cores_of(mode, local_rank, _topology(device, local_world_size, allowed))
    if cores:
        os.sched_setaffinity(0, cores)


def _cores_in_auto(
    device: torch.device, local_rank: int, local_world_size: int, allowed: set[int]
) -> set[int]:
    if device.type == "cuda":
        return _cores_of_gpu(device) & allowed
    if local_world_size > 1:
        return set(share_of_cores(_cores_in_order(allowed), local_rank, local_world_size))
    return set()


def share_of_cores(cores: Sequence[T], position: int, count: int) -> Sequence[T]:
    """Return a contiguous part of `cores` for one of several processes; none with fewer cores than processes.

    Args:
        cores: in an order in which neighbours belong together.
        position, count: which part of how many.
    """
    if len(cores) < count:
        return []
    first, end = (len(cores) * part // count for part in (position, position + 1))
    return cores[first:end]


def parse_cpu_list(text: str) -> set[int]:
    """Parse cores in the Linux kernel's list format, such as ``0-3,8``."""
    cores: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    return cores


def _topology(device: torch.device, local_world_size: int, allowed: set[int]) -> Topology:
    """Describe this machine, restricted to the cores that the process may use."""
    nodes = [node & allowed for node in _nodes() if node & allowed] or [allowed]
    if device.type == "cuda" and torch.cuda.device_count() >= local_world_size:
        near = [_cores_of_gpu(torch.device("cuda", rank)) & allowed for rank in range(local_world_size)]
        sockets = [cores or allowed for cores in near]  # a virtual machine may not report them
    elif device.type == "cuda":
        # Each process sees only its own GPU; all are assumed to be on one socket.
        sockets = [_cores_of_gpu(device) & allowed or allowed] * local_world_size
    else:
        sockets = [nodes[rank * len(nodes) // local_world_size] for rank in range(local_world_size)]
    return Topology([frozenset(cores) for cores in sockets], _physical(allowed))


def _physical(allowed: Iterable[int]) -> list[frozenset[int]]:
    return list(dict.fromkeys(frozenset(_siblings(core)) for core in sorted(allowed)))


def _siblings(core: int) -> set[int]:
    return _read_cpu_list(_SYSTEM / f"cpu/cpu{core}/topology/thread_siblings_list") or {core}


def _nodes() -> list[set[int]]:
    return [_read_cpu_list(path) for path in sorted(_SYSTEM.glob("node/node[0-9]*/cpulist"))]


def _cores_of_gpu(device: torch.device) -> set[int]:
    properties: Any = torch.cuda.get_device_properties(device)  # PyTorch's stub lacks the address
    address = f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    return _read_cpu_list(Path(f"/sys/bus/pci/devices/{address}/local_cpulist"))


def _cores_in_order(allowed: set[int]) -> list[int]:
    """Order cores by NUMA node and then by physical core, so that processes share as few physical cores as possible."""
    nodes = _nodes()

    def place(core: int) -> tuple[int, int, int]:
        node = next((number for number, members in enumerate(nodes) if core in members), len(nodes))
        return node, min(_siblings(core)), core

    return sorted(allowed, key=place)


def _read_cpu_list(path: Path) -> set[int]:
    try:
        return parse_cpu_list(path.read_text())
    except OSError:
        return set()
