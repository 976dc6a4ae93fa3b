"""Cores that a process takes, on an invented machine and on this one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from effnet.runtime import affinity
from effnet.runtime.affinity import Topology, bind_process, cores_of, parse_cpu_list, share_of_cores
from effnet.runtime.errors import UserError


@pytest.mark.parametrize(
    ("text", "cores"),
    [("0-3,8\n", {0, 1, 2, 3, 8}), ("5", {5}), ("\n", set()), ("0-1,64-65", {0, 1, 64, 65})],
)
def test_the_kernel_s_lists(text: str, cores: set[int]) -> None:
    assert parse_cpu_list(text) == cores


def test_shares_are_even_and_cover_all() -> None:
    cores = [0, 4, 1, 5, 2, 6, 3, 7]
    shares = [set(share_of_cores(cores, rank, 3)) for rank in range(3)]
    assert set.union(*shares) == set(cores)
    assert sorted(map(len, shares)) == [2, 3, 3]
    assert share_of_cores(cores, 0, 4) == [0, 4]
    assert share_of_cores([0, 1], 1, 4) == []


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """Two NUMA nodes of two physical cores with two threads each, numbered as kernels do."""
    for node, listed in enumerate(("0-1,4-5", "2-3,6-7")):
        (tmp_path / f"node/node{node}").mkdir(parents=True)
        (tmp_path / f"node/node{node}/cpulist").write_text(listed + "\n")
    for core in range(8):
        folder = tmp_path / f"cpu/cpu{core}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{core % 4},{core % 4 + 4}\n")
    return tmp_path


def test_processes_on_a_cpu_divide_the_nodes(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[set[int]] = []
    monkeypatch.setattr(affinity, "_SYSTEM", system)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: bound.append(cores))
    for rank in range(2):
        bind_process("auto", torch.device("cpu"), rank, 2)
    assert bound == [{0, 1, 4, 5}, {2, 3, 6, 7}]
    bound.clear()
    # Four: each a physical core with both its threads.
    for rank in range(4):
        bind_process("auto", torch.device("cpu"), rank, 4)
    assert bound == [{0, 4}, {1, 5}, {2, 6}, {3, 7}]
    bound.clear()
    bind_process("auto", torch.device("cpu"), 0, 1)
    bind_process("auto", torch.device("cpu"), 0, 9)
    assert bound == []


# A DGX in small: two sockets of ten physical cores with two threads each; eight GPUs, four to a socket, and as such
# machines number them, the second threads after all first ones: physical core c has the threads c and c + 20.
GPUS = 8
NODES = [frozenset({*range(first, first + 10), *range(first + 20, first + 30)}) for first in (0, 10)]
DGX = Topology(
    sockets=[NODES[rank // 4] for rank in range(GPUS)],
    physical=[frozenset({core, core + 20}) for core in range(20)],
)
UNIQUE = ["socket_single_unique", "socket_unique_interleaved", "socket_unique_contiguous"]


def on_dgx(mode: str) -> list[set[int]]:
    return [cores_of(mode, rank, DGX) for rank in range(GPUS)]


def threads(*physical: int) -> set[int]:
    return {thread for core in physical for thread in (core, core + 20)}


def test_modes_that_share_the_socket() -> None:
    assert on_dgx("socket") == [set(NODES[0])] * 4 + [set(NODES[1])] * 4
    assert on_dgx("socket_single") == [threads(0)] * 4 + [threads(10)] * 4


def test_modes_that_divide_the_socket() -> None:
    assert on_dgx("socket_single_unique") == [threads(core) for core in (0, 1, 2, 3, 10, 11, 12, 13)]
    # Ten cores for four processes: interleaved 3, 3, 2 and 2.
    assert on_dgx("socket_unique_interleaved")[:4] == [
        threads(0, 4, 8),
        threads(1, 5, 9),
        threads(2, 6),
        threads(3, 7),
    ]
    assert on_dgx("socket_unique_contiguous")[4:] == [
        threads(10, 11),
        threads(12, 13, 14),
        threads(15, 16),
        threads(17, 18, 19),
    ]


@pytest.mark.parametrize("mode", UNIQUE)
def test_no_core_belongs_to_two_processes(mode: str) -> None:
    taken = on_dgx(mode)
    assert sum(map(len, taken)) == len(set.union(*taken))
    assert all(cores <= DGX.sockets[rank] for rank, cores in enumerate(taken))
    if mode != "socket_single_unique":
        assert set.union(*taken) == set(range(40))


@pytest.mark.parametrize("mode", UNIQUE)
def test_gpus_that_alternate_between_the_sockets(mode: str) -> None:
    alternating = Topology([NODES[rank % 2] for rank in range(GPUS)], DGX.physical)
    assert [cores_of(mode, rank, alternating) for rank in (0, 2, 4, 6)] == on_dgx(mode)[:4]


@pytest.mark.parametrize("mode", UNIQUE)
def test_fewer_cores_than_processes(mode: str) -> None:
    one_core = Topology([frozenset({3, 23})] * 2, [frozenset({3, 23})])
    assert [cores_of(mode, rank, one_core) for rank in range(2)] == [{3}, {23}]
    with pytest.raises(UserError, match="3 processes share 2 cores of a NUMA node.*--gpu-affinity socket"):
        cores_of(mode, 2, Topology([frozenset({3, 23})] * 3, one_core.physical))


def test_processes_on_a_cpu_are_spread_over_the_nodes(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[set[int]] = []
    monkeypatch.setattr(affinity, "_SYSTEM", system)
    # A container that may not use core 5.
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)) - {5})
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: bound.append(cores))
    for mode in ("socket", "socket_single", *UNIQUE):
        for rank in range(4):
            bind_process(mode, torch.device("cpu"), rank, 4)
    assert bound == [
        *([{0, 1, 4}] * 2 + [{2, 3, 6, 7}] * 2),
        *([{0, 4}] * 2 + [{2, 6}] * 2),
        *([{0, 4}, {1}, {2, 6}, {3, 7}] * 3),
    ]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_this_process_is_bound() -> None:
    code = (
        "import os, torch; from effnet.runtime.affinity import bind_process;"
        "bind_process('socket_single', torch.device('cpu'), 0, 1); print(*os.sched_getaffinity(0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first = min(os.sched_getaffinity(0))
    siblings = Path(f"/sys/devices/system/cpu/cpu{first}/topology/thread_siblings_list")
    threads = parse_cpu_list(siblings.read_text()) if siblings.exists() else {first}
    assert set(map(int, done.stdout.split())) <= threads
