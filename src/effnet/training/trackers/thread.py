"""A tracker at work in a thread of its own, so that no training waits for it or ends with it."""

import json
import logging
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

from effnet.runtime.errors import one_line
from effnet.runtime.files import atomic_path
from effnet.training.trackers.form import Confusion, Connection, PointKind, TrackedRun, Tracker

_LOG = logging.getLogger("effnet")
_MOST_WAITING = 10_000
_TELL_AFTER_S = 2.0
_MOST_FAILURES = 3
"""errors in a row after which a tracker is left alone"""


class Points:
    """The curves of a run at a tracker: each line of the run's log becomes a point once.

    Args:
        connection: the run at the tracker.
        memory: file that remembers what the tracker has, for a run that goes on.
        steps_per_epoch: batches of each process in an epoch.
    """

    def __init__(self, connection: Connection, memory: Path, steps_per_epoch: int) -> None:
        self.connection = connection
        self._memory = memory
        self._steps = steps_per_epoch
        self._written: dict[PointKind, int] = dict.fromkeys(typing.get_args(PointKind), -1)
        self._ended = -1  # step at which the tracker's run ended before it went on

    def go_on(self, kept: Iterable[Mapping[str, Any]], position: int) -> None:
        """Bring the tracker to where the run's log is: add what it lacks, take back what the log has no more.

        Args:
            kept: lines of the log.
            position: batches after which the run goes on.
        """
        if read_memory(self._memory)["id"] == self.connection.identity:
            self._written = {
                **self._written,
                **(self.connection.written() or read_memory(self._memory)["written"]),
            }
            # Points at the last step itself may be there in part.
            self._rewind(min(position, max(self._written.values())))
        self._ended = self._written["summary"]
        self._remember()
        for line in kept:
            self.take(line)

    def take(self, line: Mapping[str, Any]) -> None:
        """Add the point of a line of the log, if it is one and the tracker does not have it."""
        kind, data = line["type"], line["data"]
        if kind == "event" and data.get("event") == "rollback":
            self._rewind(line["epoch"] * self._steps + 1)
        if kind not in self._written:
            return
        step = self._step_of(kind, line)
        if step <= self._written[kind]:
            return
        self.connection.points(kind, _numbers(kind, data), step, line["time"])
        self._written[kind] = step
        self._remember()

    def confusion(self, matrix: Confusion, step: int) -> None:
        """Add a confusion matrix at the end of a run, unless the tracker has the one of an earlier end at this step."""
        if step > self._ended:
            self.connection.confusion(matrix, step)

    def _step_of(self, kind: PointKind, line: Mapping[str, Any]) -> int:
        """Return the batches since the start of the training at a line."""
        if kind == "iteration":
            return int(line["epoch"] * self._steps + line["step"])
        finished = line["epoch"] + (kind == "epoch")
        return int(finished * self._steps)

    def _rewind(self, step: int) -> None:
        if self.connection.rewind(max(step, 1)):
            self._written = {kind: min(last, step - 1) for kind, last in self._written.items()}

    def _remember(self) -> None:
        with atomic_path(self._memory, make_folder=True) as temporary:
            temporary.write_text(json.dumps({"id": self.connection.identity, "written": self._written}))


def read_memory(path: Path) -> dict[str, Any]:
    """Return what `Points` has remembered: `id`, None for nothing, and `written`, a step by kind."""
    nothing: dict[str, Any] = {"id": None, "written": {}}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        written = {str(kind): int(step) for kind, step in found["written"].items()}
        return {"id": str(found["id"]), "written": written}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return nothing


def _numbers(kind: PointKind, data: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a line by the names that trackers show."""
    return {
        _shown_name(kind, name): value
        for name, value in data.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if kind != "summary" or name.startswith("best_")
    }


def _shown_name(kind: PointKind, name: str) -> str:
    """Return the name of a metric in a tracker, of which the part before the slash is a group of curves."""
    if kind == "iteration":
        return f"step/{name.partition('.')[2]}"
    return name.replace("_" if kind == "summary" else ".", "/", 1)


class TrackerThread:
    """A tracker in a thread. Its errors are warnings; one that fails again and again is left alone.

    Args:
        tracker: the tracker.
        run: the run.
        memory: see `Points`.
        steps_per_epoch: batches of each process in an epoch.
        say: prints a line.
    """

    def __init__(
        self,
        tracker: Tracker,
        run: TrackedRun,
        memory: Path,
        steps_per_epoch: int,
        say: Callable[[str], None],
    ) -> None:
        self._tracker, self._run, self._memory, self._steps = tracker, run, memory, steps_per_epoch
        self._say = say
        self._is_lost = False
        self._has_warned = False
        self._is_open = Event()
        self._jobs: Queue[Callable[[Points], None] | None] = Queue(_MOST_WAITING)
        self._thread = Thread(target=self._work, name=f"tracker {tracker.name}", daemon=True)
        self._thread.start()

    def wait_until_open(self, patience: float) -> None:
        """Wait until the tracker has begun the run, but for no more than `patience` seconds."""
        self._is_open.wait(patience)

    def put(self, job: Callable[[Points], None] | None) -> None:
        """Add work, or None for the end; returns at once."""
        if self._is_lost:
            return
        try:
            self._jobs.put_nowait(job)
        except Full:
            self._give_up("does not keep up")

    def close(self, patience: float) -> None:
        """Wait until all is done, but for no more than `patience` seconds."""
        self.put(None)
        if not self._is_lost:
            self._thread.join(min(patience, _TELL_AFTER_S))
            if self._thread.is_alive() and patience > _TELL_AFTER_S:
                self._say(f"waiting for {self._tracker.name}, {patience:g} s at most")
                self._thread.join(patience - _TELL_AFTER_S)
            if self._thread.is_alive():
                self._give_up(f"has not ended within {patience:g} s")

    def _work(self) -> None:
        try:
            connection = self._tracker.open(self._run)
            self._say(f"{self._tracker.name}: {connection.where}")
        except (Exception, SystemExit) as error:
            self._give_up(_shown(error))
            return
        finally:
            self._is_open.set()
        points = Points(connection, self._memory, self._steps)
        failures = 0
        while not self._is_lost and (job := self._jobs.get()) is not None:
            try:
                job(points)
                failures = 0
            except (Exception, SystemExit) as error:
                failures += 1
                self._warn(_shown(error))
                self._is_lost = failures == _MOST_FAILURES

    def _give_up(self, reason: str) -> None:
        self._is_lost = True
        self._warn(reason)

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            _LOG.warning(
                "--track %s: %s; the training goes on, and its log has it all", self._tracker.name, reason
            )


def _shown(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
