"""Memory is kept, seen in the page faults of a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from effnet.runtime.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def use():
    return [torch.ones(rows, 2**20) for rows in (16, 5, 12, 9)]
for _ in range(6):  # aligned blocks fit where somewhat larger ones were: that takes some rounds to come about
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    # Huge pages, which a command that ran in this process has asked for, would be few faults in any case.
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    command = [sys.executable, "-c", SCRIPT, mode]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(ended.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is the GNU C library's")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    pages = 4 * 42 * 4 * 2**20 // 4096
    assert faults("leave") > pages // 2
    assert faults("keep") < pages // 100
