"""Keep each process on cores of its own, so that its memory is not across the machine."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

_SYSTEM = Path("/sys/devices/system")


def bind_process(device: torch.device, local_rank: int, local_world_size: int) -> None:
    """Bind this process, and the workers it starts, to the cores of its GPU's NUMA node.

    Several processes on a CPU share the cores evenly, NUMA node by node. Nothing happens to a single one there, or
    where the system does not tell which cores belong together.

    Args:
        device: where the process computes.
        local_rank: its number on this machine.
        local_world_size: processes on this machine.
    """
    if not hasattr(os, "sched_setaffinity"):
        return
    allowed = os.sched_getaffinity(0)
    if device.type == "cuda":
        cores = _cores_of_gpu(device) & allowed
    elif local_world_size > 1:
        cores = share_of_cores(_cores_in_order(allowed), local_rank, local_world_size)
    else:
        return
    if cores:
        os.sched_setaffinity(0, cores)


def share_of_cores(cores: Sequence[int], local_rank: int, local_world_size: int) -> set[int]:
    """An even, contiguous part of `cores` for one of several processes; none if there are fewer cores than processes.

    Args:
        cores: in an order in which neighbours belong together.
        local_rank, local_world_size: which part of how many.
    """
    if len(cores) < local_world_size:
        return set()
    first, end = (len(cores) * part // local_world_size for part in (local_rank, local_rank + 1))
    return set(cores[first:end])


def parse_cpu_list(text: str) -> set[int]:
    """Cores in the kernel's list format, such as ``0-3,8``."""
    cores: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    return cores


def _cores_of_gpu(device: torch.device) -> set[int]:
    properties: Any = torch.cuda.get_device_properties(device)  # PyTorch's stub lacks the address
    address = f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    return _read_cpu_list(Path(f"/sys/bus/pci/devices/{address}/local_cpulist"))


def _cores_in_order(allowed: set[int]) -> list[int]:
    """Cores by NUMA node, and in a node by physical core, so that two processes don't share one's hyper-threads."""
    nodes = [_read_cpu_list(path) for path in sorted(_SYSTEM.glob("node/node[0-9]*/cpulist"))]

    def place(core: int) -> tuple[int, int, int]:
        node = next((number for number, members in enumerate(nodes) if core in members), len(nodes))
        siblings = _read_cpu_list(_SYSTEM / f"cpu/cpu{core}/topology/thread_siblings_list")
        return node, min(siblings, default=core), core

    return sorted(allowed, key=place)


def _read_cpu_list(path: Path) -> set[int]:
    try:
        return parse_cpu_list(path.read_text())
    except OSError:
        return set()
