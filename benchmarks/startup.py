"""Start-up: times of whole processes, the time to the first training step, and the peak memory of every command.

The processes take turns, so that a change of the machine's load affects all of them; the table has medians. The
processor's time is less sensitive to what else runs on the machine. timm's inference is measured beside
`effnet classify`, on the same model and photographs, with weights that are random instead of read.
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from effnet.benchmark.environment import environment
from effnet.benchmark.tables import markdown
from effnet.runtime.errors import UserError

_EFFNET = (sys.executable, "-m", "effnet")
_PYTHON = (sys.executable, "-c")
_MANY = 1000
_LOOKS = 0.005  # seconds between two looks at a training's log
_MOST_SECONDS = 1800.0
BASE = "import torch"
FIRST_STEP = "first step of make train"
_TIMM = """
import os, sys, timm, torch
from timm.data import ImageDataset, create_transform, resolve_data_config
model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
transform = create_transform(**resolve_data_config({}, model=model))
workers = min(len(os.sched_getaffinity(0)), int(sys.argv[2]) // 16)
images = ImageDataset(sys.argv[1], transform=transform)
with torch.inference_mode():
    for batch, _ in torch.utils.data.DataLoader(images, batch_size=16, num_workers=workers):
        print(model(batch).softmax(1).topk(5))
"""
# Starts a program and reports on it. The peak memory of a process counts from that of the one which has forked it,
# so that this one is small.
_STARTER = """
import os, sys, time
begun = time.time()
number = os.fork()
if not number:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execvp(sys.argv[1], sys.argv[1:])
print(number, begun, flush=True)
_, status, usage = os.wait4(number, 0)
taken = time.time() - begun
print(os.waitstatus_to_exitcode(status), taken, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
"""
COMMANDS: dict[str, str] = {
    "help": "--help",
    "models": "models",
    "completion": "completion bash",
    "doctor": "doctor",
    "prepare sample": "prepare sample {out}/digits",
    "prepare check": "prepare check {data}",
    "prepare pack": "prepare pack {data} {out}/packed --workers 1",
    "init": "init {data} --out {out}/recipe.yaml",
    "find-lr": "find-lr {data} --recipe {recipe} --steps 10 --workspace {out}/find-lr",
    "train": "train {data} --recipe {recipe} --epochs 1 --workspace {run}",
    "watch": "watch {run} --once",
    "evaluate": "evaluate {data} --resume {run}/checkpoint.pth.tar --workspace {out}/evaluate",
    "report": "report {run} -o {out}/report.html",
    "quantize": "quantize {data} --recipe {recipe} --arch efficientnet-quant-b0 --epochs 0 --workspace {out}/quantize",
    "export onnx": "export onnx --arch efficientnet-lite0 --output {out}/model.onnx",
    "export openvino": "export openvino --arch efficientnet-lite0 --output {out}/model.xml",
    "classify": "classify {photo}",
    "predict": "predict {many} --out {out}/table.csv --workers 1",
    "compare": "compare efficientnet-lite0 {out}/model.onnx --data {few} --output {out}/compare.html --workers 0",
    "benchmark data": "benchmark data {data} --image-size 32 --images 64 --repeats 1 --workers 1",
    "benchmark train": "benchmark train --image-size 64 -b 32 --rounds 1 --steps 2 --eager-only --no-baselines",
    "benchmark inference": "benchmark inference --engine torch --rounds 1 --steps 2 --eager-only --no-baselines",
}
"""arguments of `effnet` whose peak memory is measured, in an order in which each finds the files that it needs"""
NOT_MEASURED = {
    "serve": "answers until it is stopped",
    "push": "needs an account on a hub",
}


class Cost(NamedTuple):
    """Cost of a process.

    Attributes:
        seconds: from its start to its end, or to its first training step.
        processor: seconds of the processor in user and system mode, of the process and its children.
        memory: peak memory in bytes of the largest one among the process and its children.
    """

    seconds: float
    processor: float
    memory: int


@dataclass(frozen=True)
class Plan:
    """Settings of the measurement.

    Attributes:
        photo: image for `effnet classify`, whose weights are on this machine.
        rounds: times that each process runs.
        many: photographs of the larger classification.
        times, memory: what is measured.
    """

    photo: Path
    rounds: int = 9
    many: int = _MANY
    times: bool = True
    memory: bool = True


def run_once(command: Sequence[str], log: Path | None = None) -> Cost:
    """Run a process to its end, or until its log tells of the first training step.

    Args:
        command: the program and its arguments.
        log: file of `effnet train --report-file` that is to be waited for; the process is ended then.

    Raises:
        UserError: it fails.
    """
    with tempfile.TemporaryFile() as errors:
        starter = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", _STARTER, *command], stdout=subprocess.PIPE, stderr=errors
        )
        with starter:
            assert starter.stdout is not None
            number, begun = starter.stdout.readline().split()
            step = None if log is None else _first_step(log, starter)
            if step is not None:
                os.kill(int(number), signal.SIGKILL)
            values = starter.stdout.readline().split()
        code, seconds, processor, memory = int(values[0]), float(values[1]), float(values[2]), int(values[3])
        if step is None and (code or log is not None):
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            raise UserError(f"{' '.join(command)[:200]}: exit code {code}: {''.join(said[-1:])}")
    return Cost(seconds if step is None else step - float(begun), processor, memory)


def _first_step(log: Path, starter: "subprocess.Popen[bytes]") -> float | None:
    """Return the time at which a training logs its first step; None if it ends before."""
    end = time.monotonic() + _MOST_SECONDS
    while starter.poll() is None and time.monotonic() < end:
        if log.is_file():
            for line in log.read_text(encoding="utf-8").splitlines():
                if '"iteration"' in line and line.endswith("}"):
                    return float(json.loads(line)["time"])
        time.sleep(_LOOKS)
    return None


def benchmark_startup(plan: Plan) -> dict[str, Any]:
    """Measure.

    Returns:
        Plain values for JSON: `times` and `memory` by process, each with medians, and the environment.

    Raises:
        UserError: a photograph that is not there, or a process that fails.
    """
    if not plan.photo.is_file():
        raise UserError(f"{plan.photo}: no such file; name a photograph")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = _prepared(plan, folder)
        times = _times(plan, places, folder) if plan.times else {}
        memory = _memory(places) if plan.memory else {}
    return {
        "benchmark": "startup",
        "rounds": plan.rounds,
        "photographs": plan.many,
        "times": times,
        "memory": memory,
        "not_measured": NOT_MEASURED,
        "environment": environment(),
    }


def _prepared(plan: Plan, folder: Path) -> dict[str, str]:
    """Return the files and folders that commands name in braces."""
    places = {name: folder / name for name in ("data", "out", "run", "many", "few", "one")}
    places["out"].mkdir()
    for name, count in (("many", plan.many), ("few", 8), ("one", 1)):
        (places[name] / "photographs").mkdir(parents=True)
        for number in range(count):
            shutil.copy(plan.photo, places[name] / "photographs" / f"{number:05d}{plan.photo.suffix}")
    run_once([*_EFFNET, "prepare", "sample", str(places["data"])])
    recipe = Path(__file__).resolve().parent.parent / "recipes" / "sample.yaml"
    return {
        **{name: str(path) for name, path in places.items()},
        "photo": str(plan.photo),
        "recipe": str(recipe),
    }


def processes(places: Mapping[str, str], many: int) -> dict[str, tuple[str, ...]]:
    """Return the processes to time by a short name; the first is the baseline."""
    main = Path(__file__).resolve().parent.parent / "main.py"
    training = (
        "--recipe",
        places["recipe"],
        "--print-freq",
        "1",
        "--workspace",
        places["out"] + "/first-step",
    )
    return {
        BASE: (*_PYTHON, "import torch"),
        "effnet --help": (*_EFFNET, "--help"),
        "effnet models": (*_EFFNET, "models"),
        "create_model": (*_PYTHON, "import effnet; effnet.create_model('efficientnet-b0')"),
        "effnet classify, 1": (*_EFFNET, "classify", places["photo"]),
        "timm, 1": (*_PYTHON, _TIMM, places["one"], "1"),
        f"effnet classify, {many}": (*_EFFNET, "classify", places["many"]),
        f"timm, {many}": (*_PYTHON, _TIMM, places["many"], str(many)),
        FIRST_STEP: (sys.executable, str(main), *training, places["data"]),
    }


def _times(plan: Plan, places: Mapping[str, str], folder: Path) -> dict[str, Any]:
    costs: dict[str, list[Cost]] = {}
    workspace = folder / "out" / "first-step"
    for _ in range(plan.rounds):
        for name, command in processes(places, plan.many).items():
            log = workspace / "report.json" if name == FIRST_STEP else None
            shutil.rmtree(workspace, ignore_errors=True)
            costs.setdefault(name, []).append(run_once(command, log))
    medians = {name: Cost(*map(statistics.median, zip(*own, strict=True))) for name, own in costs.items()}
    return {
        name: {
            **median._asdict(),
            "of_import_torch": median.seconds / medians[BASE].seconds,
            "rounds": [cost.seconds for cost in costs[name]],
        }
        for name, median in medians.items()
    }


def _memory(places: Mapping[str, str]) -> dict[str, Any]:
    measured = {BASE: run_once((*_PYTHON, "import torch"))}
    for name, arguments in COMMANDS.items():
        words = [word.format(**places) for word in arguments.split()]
        try:
            measured[f"effnet {name}"] = run_once([*_EFFNET, *words])
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    return {name: cost._asdict() for name, cost in measured.items()}


def report(result: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    parts = []
    if times := result["times"]:
        header = ("process", "s", "of `import torch`", "processor s", "peak MiB")
        rows = [
            [
                name,
                f"{row['seconds']:.2f}",
                f"{row['of_import_torch']:.2f}",
                f"{row['processor']:.2f}",
                f"{row['memory'] / 2**20:.0f}",
            ]
            for name, row in times.items()
        ]
        parts.append(markdown(header, rows))
    if memory := result["memory"]:
        rows = [[name, f"{row['memory'] / 2**20:.0f}"] for name, row in memory.items()]
        parts.append(markdown(("command", "peak MiB"), rows))
    return "\n\n".join(parts)
