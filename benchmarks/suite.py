"""The most useful benchmarks of a machine, in one command and a given time.

Each part is a command in its own process: a part that fails or runs out of time is reported, and the others go on. The
most important parts come first.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from effnet.runtime.errors import UserError
from effnet.runtime.files import write_text

_TRAIN = "effnet benchmark train --json {out}/{name}.json"
_INFERENCE = "effnet benchmark inference --json {out}/{name}.json --markdown {out}/{name}.md"
PARTS: dict[str, dict[str, str]] = {
    "cuda": {
        # PyTorch's kernels first: tuning and compiling this project's own takes minutes at the first start.
        "train-b0": f"{_TRAIN} --image-size 224 --batch-size 256 --amp --steps 10 --kernels torch",
        "inference-b0": f"{_INFERENCE} --batch-size 1 256 --precision amp",
        "kernels": "python -m benchmarks kernels --batch-size 256 --amp --json {out}/{name}.json",
        "train-b0-kernels": f"{_TRAIN} --image-size 224 --batch-size 256 --amp --steps 10 --no-baselines",
        "train-b4": f"{_TRAIN} --arch efficientnet-b4 --image-size 380 --batch-size 64 --amp --kernels torch",
        "roofline": "python -m benchmarks roofline --batch-size 256 --amp --json {out}/{name}.json",
    },
    "cpu": {
        "train-b0": f"{_TRAIN} --image-size 64 --batch-size 32",
        "inference-b0": f"{_INFERENCE} --batch-size 1 8 --rounds 5",
        "roofline": "python -m benchmarks roofline --batch-size 16 --json {out}/{name}.json",
    },
}
"""device to parts; a part is a name and a command, with {out} for the folder and {name} for the name"""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a part."""

    name: str
    command: str
    seconds: float
    output: str
    failure: str | None
    """reason why there is no result"""


def run_suite(out: Path, minutes: float, parts: dict[str, str] | None = None) -> list[Outcome]:
    """Run the parts for this machine; write their JSON files, and `README.md` with their output.

    Args:
        out: folder for the results.
        minutes: time for all parts; what does not fit is left out.
        parts: as a value of `PARTS` [default: those of the machine's device].

    Raises:
        UserError: the folder can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    deadline = time.monotonic() + 60 * minutes
    outcomes: list[Outcome] = []
    for name, command in (PARTS[device] if parts is None else parts).items():
        outcome = _run(name, command.format(out=out, name=name), deadline)
        outcomes.append(outcome)
        print(f"== {outcome.command}\n{outcome.failure or outcome.output}", flush=True)
        write_text(out / "README.md", _page(outcomes))
    return outcomes


def _run(name: str, command: str, deadline: float) -> Outcome:
    begun = time.monotonic()
    if begun >= deadline:
        return Outcome(name, command, 0.0, "", "left out: no time remains (--minutes)")
    try:
        ended = subprocess.run(
            process_arguments(command),
            capture_output=True,
            text=True,
            timeout=deadline - begun,
            check=False,
        )
    except subprocess.TimeoutExpired:
        late = "stopped: the time was up (--minutes)"
        return Outcome(name, command, time.monotonic() - begun, "", late)
    failure = None
    if ended.returncode:
        last = ended.stderr.strip().splitlines() or ["no message"]
        failure = f"failed with {ended.returncode}: {last[-1]}"
    return Outcome(name, command, time.monotonic() - begun, ended.stdout.rstrip(), failure)


def process_arguments(command: str) -> list[str]:
    """Return the arguments that run a command line of `effnet` or `python` with this interpreter."""
    program, *arguments = shlex.split(command)
    return [sys.executable, *(["-m", "effnet"] if program == "effnet" else []), *arguments]


def _page(outcomes: Sequence[Outcome]) -> str:
    parts = [
        "# Benchmarks",
        "Made by `python -m benchmarks suite`; the JSON files name machine, versions and commit.",
    ]
    for outcome in outcomes:
        said = outcome.failure or f"```text\n{outcome.output}\n```"
        parts += [f"## {outcome.name}", f"`{outcome.command}`, {outcome.seconds:.0f} s", said]
    return "\n\n".join(parts) + "\n"
