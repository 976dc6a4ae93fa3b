"""`torchrun` around real runs: a killed process, two machines."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from effnet.data.pack import pack
from effnet.training.checkpoint import read_checkpoint
from tests.runs import records
from tests.waiting import ends

REPOSITORY = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
QUICK = "--arch efficientnet-lite0 --image-size 32 --resize 32 --batch-size 2 --workers 0 --device cpu --print-freq 1"


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "src")}


def workers_of(agent: int) -> list[int]:
    """Training processes that a `torchrun` has started."""
    command = ["ps", "-o", "pid=,args=", "--ppid", str(agent)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "main.py" in line]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ps"), reason="needs ps")
def test_a_killed_process_costs_no_more_than_an_epoch(images: Path, tmp_path: Path) -> None:
    epochs, steps_per_epoch = 4, 9
    command = [
        *(PYTHON, str(REPOSITORY / "multiproc.py"), "--nproc_per_node", "2", "--max-restarts", "1"),
        *(str(REPOSITORY / "main.py"), str(images), *QUICK.split(), "--epochs", str(epochs)),
        *("--workspace", str(tmp_path), "--resume", "auto"),
    ]
    log = (tmp_path / "output").open("w")
    launcher = subprocess.Popen(command, env=environment(), stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 400
        while len(records(tmp_path, "epoch")) < 2 and launcher.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(workers_of(launcher.pid)[-1], signal.SIGKILL)
        code = launcher.wait(timeout=400)
    finally:
        launcher.kill()
        log.close()
    output = (tmp_path / "output").read_text()
    assert code == 0, output
    assert "Traceback" not in output
    # Two starts, of which the second went on from a checkpoint: the log is that of one run, each epoch in it once.
    assert output.count("run: device cpu, world_size 2") == 2
    (resumed,) = (record for record in records(tmp_path, "event") if record["data"]["event"] == "resumed")
    assert resumed["epoch"] >= 1
    assert [record["epoch"] for record in records(tmp_path, "epoch")] == list(range(epochs))
    progress = read_checkpoint(tmp_path / "checkpoint.pth.tar")["progress"]
    assert (progress["epoch"], progress["step"]) == (epochs, epochs * steps_per_epoch)


def ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def machines() -> Iterator[dict[str, str]]:
    """Two network namespaces joined by a cable, with their addresses."""
    names = {f"effnet-{os.getpid()}-{end}": f"10.231.77.{end + 1}" for end in (0, 1)}
    cable = [f"veth{os.getpid() % 100000}-{end}" for end in (0, 1)]
    if not shutil.which("ip"):
        pytest.skip("two machines are made of network namespaces: there is no `ip` here")
    try:
        for name in names:
            if (made := ip("netns", "add", name)).returncode:
                pytest.skip(f"two machines are made of network namespaces, as root: {made.stderr.strip()}")
        if (made := ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])).returncode:
            pytest.skip(f"two machines are joined by a veth pair, as root: {made.stderr.strip()}")
        for end, (name, address) in zip(cable, names.items(), strict=True):
            for command in (
                f"link set {end} netns {name}",
                f"-n {name} addr add {address}/24 dev {end}",
                f"-n {name} link set {end} up",
                f"-n {name} link set lo up",
            ):
                done = ip(*command.split())
                assert done.returncode == 0, done.stderr
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


@pytest.mark.slow
def test_two_machines(machines: dict[str, str], images: Path, tmp_path: Path) -> None:
    first = next(iter(machines.values()))
    commands = [
        [
            *("ip", "netns", "exec", name, PYTHON, str(REPOSITORY / "multiproc.py")),
            *("--nnodes", "2", "--node_rank", str(rank), "--nproc_per_node", "1"),
            *("--master_addr", first, "--master_port", "29512"),
            *(str(REPOSITORY / "main.py"), str(images), *QUICK.split(), "--epochs", "1"),
            *("--workspace", str(tmp_path)),
        ]
        for rank, name in enumerate(machines)
    ]
    runs = [
        subprocess.Popen(
            command,
            # Gloo takes the address of the host's name, which is the same in both namespaces.
            env={**environment(), "GLOO_SOCKET_IFNAME": cable_of(name)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command, name in zip(commands, machines, strict=True)
    ]
    outputs = [run.communicate(timeout=400)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(outputs)
    (parameters,) = records(tmp_path, "parameters")
    assert parameters["data"]["world_size"] == 2
    (epoch,) = records(tmp_path, "epoch")
    assert epoch["data"]["val.images"] == 15
    assert read_checkpoint(tmp_path / "checkpoint.pth.tar")["epoch"] == 1


def cable_of(name: str) -> str:
    """The network interface inside a namespace, beside the loopback."""
    links = json.loads(ip("-n", name, "-json", "link").stdout)
    return next(link["ifname"] for link in links if link["ifname"] != "lo")


@pytest.mark.parametrize(("code", "words"), [("2", ""), ("3", "ChildFailedError")])
def test_bad_input_is_passed_on(tmp_path: Path, code: str, words: str) -> None:
    script = tmp_path / "stops.py"
    script.write_text(f"import sys; sys.exit({code})")
    command = [PYTHON, str(REPOSITORY / "multiproc.py"), "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == (2 if code == "2" else 1)
    assert ("Traceback" in done.stderr) == bool(words)
    assert words in done.stderr


@pytest.fixture(scope="module")
def packed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images in a form that worker processes read, also where training computes on all cores."""
    path = tmp_path_factory.mktemp("packed") / "set"
    pack(images, path, workers=0)
    return path


def started(packed: Path, workspace: Path) -> "subprocess.Popen[bytes]":
    """Start an endless run of two processes with a loader worker each, and wait for its first step."""
    command = [
        *(PYTHON, str(REPOSITORY / "multiproc.py"), "--nproc_per_node", "2", str(REPOSITORY / "main.py")),
        *(str(packed), *QUICK.replace("--workers 0", "--workers 1").split(), "--epochs", "1000"),
        *("--data-backends", "packed"),
        *("--workspace", str(workspace)),
    ]
    with (workspace / "err").open("w") as err:
        run = subprocess.Popen(
            command, env=environment(), stdout=subprocess.DEVNULL, stderr=err, start_new_session=True
        )
    deadline = time.monotonic() + 300
    while not records(workspace, "iteration") and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert run.poll() is None, (workspace / "err").read_text()
    return run


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "code"), [("launcher", -9), ("rank", 137), ("worker", 2)])
def test_a_killed_process_leaves_no_other(packed: Path, tmp_path: Path, victim: str, code: int) -> None:
    run = started(packed, tmp_path)
    ranks = [int(word) for word in children_of(run.pid)]
    workers = [int(word) for rank in ranks for word in children_of(rank)]
    assert len(ranks) == 2
    assert len(workers) >= 2
    os.kill({"launcher": run.pid, "rank": ranks[1], "worker": workers[0]}[victim], signal.SIGKILL)
    try:
        assert run.wait(timeout=60) == code
        assert all(ends(process, within=15) for process in [*ranks, *workers])
    finally:
        run.kill()
    err = (tmp_path / "err").read_text()
    assert "Traceback" not in err
    told = {"rank": "process 1 was killed by SIGKILL", "worker": "a loader worker was killed by SIGKILL"}
    if victim in told:
        assert err.count(told[victim]) == 1


@pytest.mark.slow
def test_a_second_run_in_a_workspace_is_refused(images: Path, packed: Path, tmp_path: Path) -> None:
    run = started(packed, tmp_path)
    command = [PYTHON, str(REPOSITORY / "main.py"), str(images), *QUICK.split(), "--epochs", "1"]
    again = [*command, "--workspace", str(tmp_path)]
    ranks = children_of(run.pid)
    try:
        done = subprocess.run(again, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "is in use by process" in done.stderr
        assert run.poll() is None
    finally:
        run.kill()
    # The killed launcher's processes write a checkpoint and let go of the workspace.
    assert all(ends(int(rank), within=60) for rank in ranks)


def children_of(process: int) -> list[str]:
    """Return the process ids of the children of a process."""
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()
