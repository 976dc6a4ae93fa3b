"""Keep a process on the cores next to its GPU, so that its memory is not across the machine."""

import os
from pathlib import Path
from typing import Any

import torch


def bind_to_gpu(device: torch.device) -> None:
    """Bind this process, and the workers it starts, to the cores of the GPU's NUMA node.

    Nothing happens on a CPU, or where the system does not tell which cores those are.
    """
    if device.type != "cuda" or not hasattr(os, "sched_setaffinity"):
        return
    properties: Any = torch.cuda.get_device_properties(device)  # PyTorch's stub lacks the address
    address = f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    try:
        listed = Path(f"/sys/bus/pci/devices/{address}/local_cpulist").read_text()
    except OSError:
        return
    if cores := parse_cpu_list(listed) & os.sched_getaffinity(0):
        os.sched_setaffinity(0, cores)


def parse_cpu_list(text: str) -> set[int]:
    """Cores in the kernel's list format, such as ``0-3,8``."""
    cores: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores |= set(range(int(first), int(last or first) + 1))
    return cores
