"""The lock of a workspace, between real processes."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from effnet.runtime.errors import UserError
from effnet.runtime.lock import NAME, locked

HOLD = (
    "import sys, os, time; from pathlib import Path; from effnet.runtime.lock import locked\n"
    "with locked(Path(sys.argv[1])):\n"
    "    {}\n"
    "    print('held', flush=True); sys.stdin.read()\n"
)
FORK = "child = os.fork() or time.sleep(60)"


def holder(workspace: Path, line: str = "pass") -> "subprocess.Popen[str]":
    """Start a process that holds a workspace until its input ends."""
    command = [sys.executable, "-c", HOLD.format(line), str(workspace)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_one_is_told_of_the_first(tmp_path: Path) -> None:
    first = holder(tmp_path)
    with pytest.raises(UserError) as caught, locked(tmp_path):
        pass
    words = f"--workspace {tmp_path} is in use by process {first.pid} on {socket.gethostname()}, started 20"
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    first.communicate("")
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", ["pass", FORK])
def test_a_killed_one_leaves_nothing_behind(tmp_path: Path, line: str) -> None:
    """Its children may live on, as loader workers do for a moment."""
    first = holder(tmp_path, line)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    first.kill()
    first.wait()
    try:
        with locked(tmp_path):
            assert f'"process": {os.getpid()}' in (tmp_path / NAME).read_text()
    finally:
        for child in children:
            os.kill(int(child), signal.SIGKILL)
    assert len(children) == (line == FORK)


def test_not_twice_in_a_process(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(UserError, match="in use by this process"), locked(tmp_path / "."):
            pass
        # The refusal has not ended the lock.
        command = [sys.executable, "-c", HOLD.format("pass"), str(tmp_path)]
        done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
        assert "in use by process" in done.stderr


def test_of_many_at_once_one_holds_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD.format("pass"), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    starts = [subprocess.Popen(command, text=True, **pipes) for _ in range(6)]  # type: ignore[call-overload]
    held = [start.stdout.readline() == "held\n" for start in starts]
    for start in starts:
        start.communicate("")
    assert held.count(True) == 1


def test_a_damaged_file_names_nobody(tmp_path: Path) -> None:
    first = holder(tmp_path)
    (tmp_path / NAME).write_text('{"process": "?"}')
    with pytest.raises(UserError, match="in use by another run"), locked(tmp_path):
        pass
    first.communicate("")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="can't lock"), locked(tmp_path):
        pass
