"""The benchmarks worth having of a machine, in one command and a given time.

Each part is a command of its own in a process of its own: a failure or a part that takes too long is named and costs no
other part. The parts are ordered by what one would miss most.
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

_TRAIN = "benchmark train --json {out}/{name}.json"
_INFERENCE = "benchmark inference --json {out}/{name}.json --markdown {out}/{name}.md"
PARTS: dict[str, dict[str, str]] = {
    "cuda": {
        # The library's kernels first: measuring and compiling this project's own takes minutes at the first start.
        "train-b0": f"{_TRAIN} --image-size 224 --batch-size 256 --amp --steps 10 --kernels torch",
        "inference-b0": f"{_INFERENCE} --batch-size 1 256 --precision amp",
        "kernels": "benchmark kernels --batch-size 256 --amp --json {out}/{name}.json",
        "train-b0-kernels": f"{_TRAIN} --image-size 224 --batch-size 256 --amp --steps 10 --no-peers",
        "train-b4": f"{_TRAIN} --arch efficientnet-b4 --image-size 380 --batch-size 64 --amp --kernels torch",
        "roofline": "benchmark roofline --batch-size 256 --amp --json {out}/{name}.json",
    },
    "cpu": {
        "train-b0": f"{_TRAIN} --image-size 64 --batch-size 32",
        "inference-b0": f"{_INFERENCE} --batch-size 1 8 --rounds 5",
        "roofline": "benchmark roofline --batch-size 16 --json {out}/{name}.json",
    },
}
"""by device: name to arguments of `effnet`"""


@dataclass(frozen=True)
class Outcome:
    """How a part ended."""

    name: str
    command: str
    seconds: float
    output: str
    failure: str | None
    """why there is no result"""


def run_suite(out: Path, minutes: float, parts: dict[str, str] | None = None) -> list[Outcome]:
    """Run the parts for this machine; JSON files, `README.md` with all that was printed.

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
    for name, arguments in (PARTS[device] if parts is None else parts).items():
        outcome = _run(name, arguments.format(out=out, name=name).split(), deadline)
        outcomes.append(outcome)
        print(f"== {outcome.command}\n{outcome.failure or outcome.output}", flush=True)
        write_text(out / "README.md", _page(outcomes))
    return outcomes


def _run(name: str, arguments: Sequence[str], deadline: float) -> Outcome:
    command = f"effnet {shlex.join(arguments)}"
    begun = time.monotonic()
    if begun >= deadline:
        return Outcome(name, command, 0.0, "", "left out: no time remains (--minutes)")
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "effnet", *arguments],
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
        last = ended.stderr.strip().splitlines() or ["no word"]
        failure = f"failed with {ended.returncode}: {last[-1]}"
    return Outcome(name, command, time.monotonic() - begun, ended.stdout.rstrip(), failure)


def _page(outcomes: Sequence[Outcome]) -> str:
    parts = [
        "# Benchmarks",
        "Made by `effnet benchmark suite`; the JSON files name machine, versions and commit.",
    ]
    for outcome in outcomes:
        said = outcome.failure or f"```text\n{outcome.output}\n```"
        parts += [f"## {outcome.name}", f"`{outcome.command}`, {outcome.seconds:.0f} s", said]
    return "\n\n".join(parts) + "\n"
