"""Training runs that are killed and resumed, beside the same run without an interruption.

Every run is started as a user starts it, by `multiproc.py` in processes of its own. Equal means: every tensor and
number of the last checkpoint and every logged loss and metric, bit for bit.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from effnet.data import prepare_sample
from effnet.data.pack import pack
from effnet.runtime.errors import UserError
from effnet.runtime.log import read_records
from effnet.training.checkpoint import read_checkpoint

_REPOSITORY = Path(__file__).resolve().parent.parent
_MARK = "EFFNET_SURVIVAL"
_LOG = "report.json"
# Seconds that the processes of a run get to end after one of them was killed.
_GRACE = 20.0
_TIME_LIMIT = 900.0
# Entries of a checkpoint that name places or bytes of files, and so differ between two workspaces.
_OF_PLACES = ("digest", "recipe", "resolved_recipe", "log")
# Metrics that are not times.
_COUNTS_AND_METRICS = ("loss", "lr", "skipped_steps", "grad_scale", "top1", "top5", "images")


@dataclass(frozen=True)
class Scenario:
    """A training run to interrupt.

    Attributes:
        name: of the scenario.
        arguments: command line after ``multiproc.py --nproc_per_node N``, without workspace and --resume.
        processes: processes of the run.
        checkpoint_every: optimizer steps between two checkpoints.
        accumulation: batches of each process in a step of the optimizer.
    """

    name: str
    arguments: tuple[str, ...]
    processes: int = 2
    checkpoint_every: int = 7
    accumulation: int = 1

    def command(self, workspace: Path) -> list[str]:
        """Return the command that starts the run, or goes on with it."""
        return [
            *(sys.executable, str(_REPOSITORY / "multiproc.py"), "--nproc_per_node", str(self.processes)),
            *self.arguments,
            *("--checkpoint-every", str(self.checkpoint_every), "--resume", "auto"),
            *("--print-freq", "1", "--device", "cpu", "--workspace", str(workspace)),
        ]


@dataclass(frozen=True)
class Kill:
    """Outcome of one kill and the run that was resumed after it.

    Attributes:
        victim: `launcher`, `rank` or `all`.
        step: optimizer step after which the process was killed.
        while_writing: a checkpoint was being written at that moment.
        loadable: a checkpoint could be read after the kill, or none had been completed yet.
        lost: steps done before the kill that the resumed run repeated.
        left: processes that were still there after the grace time.
        resumed_code: exit code of the resumed run.
        differences: entries of checkpoint and log that differ from the uninterrupted run's; empty if none.
    """

    victim: str
    step: int
    while_writing: bool
    loadable: bool
    lost: int
    left: int
    resumed_code: int
    differences: tuple[str, ...]

    @property
    def survived(self) -> bool:
        """True if the kill cost nothing but time."""
        return self.loadable and not self.left and self.resumed_code == 0 and not self.differences


def scenarios(folder: Path) -> list[Scenario]:
    """Return the scenarios of the long form, and prepare their data: the embedded sample, as files and packed.

    Args:
        folder: for the data.
    """
    images, packed = folder / "sample", folder / "packed"
    prepare_sample(images)
    pack(images, packed)
    network = "--image-size 32 --resize 32 --dropout 0.2 --survival-prob 0.8 --use-ema 0.9 --seed 1"
    course = (
        "--batch-size 64 --epochs 4 --warmup 1 --lr 0.002 --rmsprop-eps 1e-3 --augmentation none --workers 1"
    )
    settings = ("--mixup", "0.2", *network.split(), *course.split())
    main, quant = str(_REPOSITORY / "main.py"), str(_REPOSITORY / "quant_main.py")
    plain = (main, str(images), "--arch", "efficientnet-b0", *settings)
    quantized = (quant, str(images), "--arch", "efficientnet-quant-b0", *settings, "--from-scratch")
    return [
        Scenario("folder", plain),
        Scenario("dali", (*plain, "--data-backend", "dali-cpu")),
        Scenario("packed", (main, str(packed), *plain[2:], "--data-backend", "packed")),
        Scenario("qat", (*quantized, "--calib-batches", "2", "--target", "onnxruntime", "--epochs", "2")),
        Scenario(
            "accumulation",
            (*plain, "--batch-size", "16", "--optimizer-batch-size", "64"),
            accumulation=2,
        ),
    ]


class Run:
    """A running training with all its processes.

    Args:
        scenario: what to run.
        workspace: its folder.
    """

    def __init__(self, scenario: Scenario, workspace: Path) -> None:
        self.workspace = workspace
        workspace.mkdir(parents=True, exist_ok=True)
        self._mark = uuid.uuid4().hex
        environment = {
            **os.environ,
            _MARK: self._mark,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(_REPOSITORY / "src"),
        }
        with (workspace / "output").open("ab") as output:
            self.launcher = subprocess.Popen(
                scenario.command(workspace),
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """Return the process ids of all processes of the run that live."""
        return [pid for pid in _all_processes() if self._is_mine(pid)]

    def _is_mine(self, pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            return (
                state != "Z" and f"{_MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
            )
        except OSError:
            return False

    def ranks(self) -> list[int]:
        """Return the process ids of the training processes."""
        children = [pid for pid in self.processes() if _parent(pid) == self.launcher.pid]
        return [pid for pid in children if b"main.py" in _command_line(pid)]

    def kill(self, victim: str, source: random.Random) -> None:
        """Kill a part of the run with SIGKILL."""
        if victim == "all":
            os.killpg(self.launcher.pid, signal.SIGKILL)
        elif victim == "rank":
            os.kill(source.choice(self.ranks()), signal.SIGKILL)
        else:
            self.launcher.kill()

    def left_after(self, seconds: float) -> int:
        """Wait for the end of all processes, end those that are left, and return their number."""
        deadline = time.monotonic() + seconds
        while (self.launcher.poll() is None or self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = self.processes()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.launcher.wait()
        return len(left)

    def finish(self) -> int:
        """Wait for the end of the run and return its exit code."""
        try:
            return self.launcher.wait(_TIME_LIMIT)
        finally:
            self.left_after(0)


def _all_processes() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Survival:
    """Interrupts runs of a scenario and compares them with one that nothing interrupted.

    Args:
        scenario: what to run.
        folder: for the workspaces.
        seed: of the moments and victims.

    Raises:
        UserError: the run fails without an interruption.
    """

    def __init__(self, scenario: Scenario, folder: Path, seed: int = 0) -> None:
        self._scenario = scenario
        self._folder = folder
        self._random = random.Random(seed)
        self._whole = folder / f"{scenario.name}-whole"
        if code := Run(scenario, self._whole).finish():
            raise UserError(
                f"{self._whole / 'output'}: the run fails without an interruption, exit code {code}"
            )
        iterations = [record["step"] for record in read_records(self._whole / _LOG, "iteration")]
        self._steps_per_epoch = -(-max(iterations) // scenario.accumulation)
        self._steps = int(read_checkpoint(self._latest(self._whole))["progress"]["step"])

    @staticmethod
    def _latest(workspace: Path) -> Path:
        return workspace / "checkpoint.pth.tar"

    def kills(self, number: int) -> Iterator[Kill]:
        """Kill and resume runs: half of them while a checkpoint is being written, a third of them the launcher."""
        for index in range(number):
            yield self._kill(index, ("launcher", "rank", "all")[index % 3], writing=index % 2 == 0)

    def _kill(self, index: int, victim: str, *, writing: bool) -> Kill:
        workspace = self._folder / f"{self._scenario.name}-{index:02}"
        run = Run(self._scenario, workspace)
        self._wait_for_moment(run, writing=writing)
        is_written, had_checkpoint = bool(_temporaries(workspace)), self._latest(workspace).exists()
        run.kill(victim, self._random)
        left = run.left_after(_GRACE)
        done = self._steps_done(workspace)
        at = _readable_step(workspace)
        code = Run(self._scenario, workspace).finish()
        differences = tuple(self._differences(workspace)) if code == 0 else ()
        kill = Kill(
            victim=victim,
            step=done,
            while_writing=is_written,
            loadable=at is not None or not had_checkpoint,
            lost=done - (at or 0),
            left=left,
            resumed_code=code,
            differences=differences,
        )
        if kill.survived:
            shutil.rmtree(workspace)
        return kill

    def _wait_for_moment(self, run: Run, *, writing: bool) -> None:
        step = self._random.randrange(1, self._steps - self._scenario.checkpoint_every)
        deadline = time.monotonic() + _TIME_LIMIT
        while self._steps_done(run.workspace) < step and run.launcher.poll() is None:
            if time.monotonic() > deadline:
                raise UserError(f"{run.workspace / 'output'}: the run does not get on")
            time.sleep(0.01)
        while writing and not _temporaries(run.workspace) and run.launcher.poll() is None:
            time.sleep(0.001)
        time.sleep(self._random.uniform(0, 0.02 if writing else 0.3))

    def _steps_done(self, workspace: Path) -> int:
        """Return the optimizer steps that the log has seen."""
        iterations = read_records(workspace / _LOG, "iteration")
        if not iterations:
            return 0
        last = iterations[-1]
        return int(last["epoch"] * self._steps_per_epoch + last["step"] // self._scenario.accumulation)

    def _differences(self, workspace: Path) -> Iterator[str]:
        yield from differences(
            read_checkpoint(self._latest(self._whole)), read_checkpoint(self._latest(workspace))
        )
        whole, resumed = logged(self._whole), logged(workspace)
        yield from (
            f"log: {key}" for key in whole.keys() | resumed.keys() if whole.get(key) != resumed.get(key)
        )


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the names of the entries in which two checkpoints differ, apart from places of files."""
    ours, theirs = dict(_leaves(one)), dict(_leaves(other))
    names = [*ours, *(name for name in theirs if name not in ours)]
    return [name for name in names if not _is_time(name) and not _equal(ours.get(name), theirs.get(name))]


def _is_time(name: str) -> bool:
    """Return True for a metric that measures the run's speed."""
    return name.startswith("metrics.") and name.split(".")[-1] not in _COUNTS_AND_METRICS


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if name or key not in _OF_PLACES:
                yield from _leaves(entry, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from _leaves(entry, f"{name}[{index}]")
    else:
        yield name, value


def _equal(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


def logged(workspace: Path) -> dict[str, list[Any]]:
    """Return the logged losses, rates and metrics by type, epoch and step; a list, to show a step logged twice."""
    found: dict[str, list[Any]] = {}
    for kind in ("iteration", "epoch"):
        for record in read_records(workspace / _LOG, kind):
            key = f"{kind} {record['epoch']} {record['step']}"
            data = record["data"]
            kept = {name: data[name] for name in sorted(data) if name.split(".")[-1] in _COUNTS_AND_METRICS}
            found.setdefault(key, []).append(kept)
    return found


def _temporaries(workspace: Path) -> list[Path]:
    return [path for path in workspace.glob(".*checkpoint*") if path.name.endswith(".pth.tar")]


def _readable_step(workspace: Path) -> int | None:
    """Return the optimizer steps of the newest checkpoint that can be read."""
    steps = []
    for path in workspace.glob("checkpoint*.pth.tar"):
        try:
            steps.append(int(read_checkpoint(path)["progress"]["step"]))
        except UserError:
            continue
    return max(steps, default=None)


def summary(scenario: Scenario, kills: Sequence[Kill]) -> dict[str, Any]:
    """Return the figures of a scenario for a report."""
    return {
        "scenario": scenario.name,
        "processes": scenario.processes,
        "checkpoint_every": scenario.checkpoint_every,
        "command": scenario.arguments,
        "kills": len(kills),
        "identical": sum(kill.survived for kill in kills),
        "while_writing": sum(kill.while_writing for kill in kills),
        "launcher": sum(kill.victim == "launcher" for kill in kills),
        "most_steps_lost": max(kill.lost for kill in kills),
        "processes_left": sum(kill.left for kill in kills),
        "each": [asdict(kill) for kill in kills],
    }
