"""A Python process that looks at something which may fail, crash or hang."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from effnet.runtime.errors import one_line

SLOW = "takes more than"
"""begins the error of what has not ended in its time"""
_ROOT = Path(__file__).resolve().parents[2]


class Probe:
    """A process with a module of this package, which reports JSON objects (`Reporter`) about named things.

    It starts at once; several run side by side.

    Args:
        module: name of the module.
        names: its arguments, the names of the things.
    """

    def __init__(self, module: str, names: Iterable[str]) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `results`)
        # -P: a folder such as onnx/ in the current folder must not be taken for the package.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *names],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )

    def results(self, seconds: float) -> dict[str, dict[str, Any]]:
        """Wait for the end, and return what was reported by name.

        Args:
            seconds: after which the process is killed.

        Returns:
            Of each thing, its report; one whose report is missing has the key ``error`` instead, with how the process
            ended.
        """
        try:
            ending = _ending(self._process.wait(seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            ending = f"{SLOW} {seconds:.0f} s"
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").splitlines()
        self._output.close()
        reports: dict[str, dict[str, Any]] = {}
        for report in filter(None, map(_parsed, lines)):
            # A name without anything else is the announcement of what comes next.
            reports[report["name"]] = report if len(report) > 1 else {**report, "error": ending}
        return reports


class Reporter:
    """The probe's side: writes reports on what was standard output, where imported libraries then write no more."""

    def __init__(self) -> None:
        self._output = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def report(self, name: str, **facts: Any) -> None:
        """Report on a thing; without facts, announce that it comes next."""
        print(json.dumps({"name": name, **facts}), file=self._output, flush=True)


def _environment() -> Mapping[str, str]:
    """Return variables with which the process finds this package, after everything that is found already."""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, str(_ROOT)])}


def _ending(code: int) -> str:
    if code < 0:
        return f"the process is killed by {signal.Signals(-code).name}"
    return f"the process ends with exit code {code}"


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        report = json.loads(line)
    except ValueError:
        return None
    return report if isinstance(report, dict) and "name" in report else None


def described(error: BaseException) -> str:
    """Return an error of another library on one line."""
    return one_line(f"{type(error).__name__}: {error}")
