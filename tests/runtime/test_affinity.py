"""Which cores a process takes."""

import os
from pathlib import Path

import pytest
import torch

from effnet.runtime import affinity
from effnet.runtime.affinity import bind_process, parse_cpu_list, share_of_cores


@pytest.mark.parametrize(
    ("text", "cores"),
    [("0-3,8\n", {0, 1, 2, 3, 8}), ("5", {5}), ("\n", set()), ("0-1,64-65", {0, 1, 64, 65})],
)
def test_the_kernel_s_lists(text: str, cores: set[int]) -> None:
    assert parse_cpu_list(text) == cores


def test_shares_are_even_and_cover_all() -> None:
    cores = [0, 4, 1, 5, 2, 6, 3, 7]
    shares = [share_of_cores(cores, rank, 3) for rank in range(3)]
    assert set.union(*shares) == set(cores)
    assert sorted(map(len, shares)) == [2, 3, 3]
    assert share_of_cores(cores, 0, 4) == {0, 4}
    assert share_of_cores([0, 1], 1, 4) == set()


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
        bind_process(torch.device("cpu"), rank, 2)
    assert bound == [{0, 1, 4, 5}, {2, 3, 6, 7}]
    bound.clear()
    # Four: each a physical core with both its threads.
    for rank in range(4):
        bind_process(torch.device("cpu"), rank, 4)
    assert bound == [{0, 4}, {1, 5}, {2, 6}, {3, 7}]
    bound.clear()
    bind_process(torch.device("cpu"), 0, 1)
    bind_process(torch.device("cpu"), 0, 9)
    assert bound == []
