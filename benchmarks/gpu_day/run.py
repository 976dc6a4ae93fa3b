"""Runs stages: each part a process with a log of its own, each stage with a limit of its own."""

import contextlib
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.gpu_day.figures import read_figures
from benchmarks.gpu_day.stages import REPOSITORY, Stage, files_of_gpu_tests
from benchmarks.suite import process_arguments
from effnet.runtime.errors import UserError
from effnet.runtime.files import write_text
from effnet.runtime.text import to_json

# Which processes of a part that is ended may still end by themselves.
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Done:
    """Outcome of a part.

    Attributes:
        command: what ran.
        seconds: how long.
        failure: reason why there is no result; None if it ended well.
    """

    command: str
    seconds: float
    failure: str | None


def run_stages(
    stages: Sequence[Stage],
    out: Path,
    data: Path,
    *,
    smallest: bool = False,
    archive: Path | None = None,
) -> dict[str, dict[str, Done]]:
    """Run the stages, one after the other; one that fails does not stop the others.

    Each writes ``<stage>.json`` (its parts and figures), and its parts ``<part>.log`` and the files that they name.

    Args:
        stages: what to run.
        out: folder for the results; those of other stages stay.
        data: folder for the images.
        smallest: at sizes for two cores, on the CPU.
        archive: file that has all of `out`, written again after each stage: a lent machine returns few files, and may
            be taken back.

    Returns:
        The outcomes of the parts, by stage.

    Raises:
        UserError: the folder can't be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from None
    outcomes = {}
    for stage in stages:
        print(f"== {stage.name}: {stage.shows}; at most {stage.minutes:g} minutes", flush=True)
        outcomes[stage.name] = _run_stage(stage, out, data, smallest=smallest)
        if archive is not None:
            with tarfile.open(archive, "w:gz") as packed:
                packed.add(out, arcname="gpu-day", filter=_is_result)
    return outcomes


def _is_result(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out images, checkpoints and the archive."""
    is_large = entry.name == "gpu-day/data" or entry.name.endswith((".tar", ".tgz", ".tar.gz"))
    return None if is_large else entry


def _run_stage(stage: Stage, out: Path, data: Path, *, smallest: bool) -> dict[str, Done]:
    deadline = time.monotonic() + 60 * stage.minutes
    values = {"out": out, "data": data, "tests": " ".join(files_of_gpu_tests())}
    (out / f"{stage.name}.json").unlink(missing_ok=True)
    done: dict[str, Done] = {}
    for name, command in (stage.smallest if smallest else stage.parts).items():
        done[name] = _run_part(command.format(**values), out / f"{name}.log", deadline)
        print(f"   {name}: {done[name].failure or 'done'}, {done[name].seconds:.0f} s", flush=True)
        content = {
            "stage": stage.name,
            "smallest": smallest,
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "parts": {part: asdict(outcome) for part, outcome in done.items()},
            "figures": read_figures(stage.name, out),
        }
        write_text(out / f"{stage.name}.json", to_json(content, indent=1))
    return done


def _run_part(command: str, log: Path, deadline: float) -> Done:
    begun = time.monotonic()
    if begun >= deadline:
        return Done(command, 0.0, "left out: the stage's time was up")
    with log.open("wb") as file:
        process = subprocess.Popen(
            process_arguments(command),
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=REPOSITORY,
            start_new_session=True,  # so that it is ended with all of its workers
            env=_environment(),
        )
        try:
            code = process.wait(timeout=deadline - begun)
        except subprocess.TimeoutExpired:
            _end(process)
            return Done(command, time.monotonic() - begun, "ended: the stage's time was up")
    failure = None if code == 0 else f"failed with {code}: {_last_line(log)}"
    return Done(command, time.monotonic() - begun, failure)


def _environment() -> Mapping[str, str]:
    path = os.pathsep.join(filter(None, ["src", ".", os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}


def _end(process: subprocess.Popen[bytes]) -> None:
    for which in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, which)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_SECONDS)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() or ["no message"]
    return lines[-1]
