"""Parts of a table by Ray Data: each worker opens the source and the model itself and sends back its parts.

Nothing but the source and the model has to be where the workers are; this process writes the table.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from effnet.inference.predict.answers import Answers
from effnet.inference.predict.computing import Part, computed
from effnet.inference.predict.formats import FORMATS
from effnet.inference.predict.job import PredictJob, same_table
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.extras import install_command
from effnet.runtime.signals import HANDLED

LOCAL = "local"
"""address for a Ray that is started for the call and ends with it"""
_LEAST_STORE = 1 << 27


@contextmanager
def ray_parts(
    job: PredictJob,
    plan: Mapping[str, Any],
    form: str,
    numbers: Sequence[int],
    *,
    address: str,
    workers: int,
    device: str,
) -> Iterator[Iterator[Part]]:
    """Yield an iterator over parts, in any order; Ray ends with the block if it was started for it.

    Args:
        job: source and model, which the workers must find under the same names.
        plan: what identifies the table; a worker that sees something else is an error.
        form: key of `FORMATS`.
        numbers: the parts.
        address: of a cluster, as `ray.init` takes it; `LOCAL` for this machine.
        workers: processes that compute.
        device: `cuda` for a GPU for each of them.

    Raises:
        UserError: Ray is not installed or not there, or a worker failed; in one line.
    """
    ray = _connected(address, workers)
    try:
        rows = ray.data.from_items([{"number": n} for n in numbers], override_num_blocks=len(numbers))
        answered = rows.map_batches(
            _Worker,
            fn_constructor_args=(job, dict(plan), form),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(numbers))),
            num_cpus=1,
            num_gpus=1 if device == "cuda" else 0,
        )
        yield _parts(ray, answered)
    finally:
        ray.shutdown()


def _connected(address: str, workers: int) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its makers otherwise
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # the workers' work is this process's, not the background's
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError(f"--ray: Ray is not installed: {install_command('ray')}") from None
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        options |= {
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": _LEAST_STORE,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        with _kept_signals():
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"--ray {address}: {one_line(error)}") from None
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    return ray


@contextmanager
def _kept_signals() -> Iterator[None]:
    """Keep this process's handlers of signals, in whose place Ray puts its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parts(ray: Any, answered: Any) -> Iterator[Part]:
    try:
        for row in answered.iter_rows():
            if row["error"]:
                raise UserError(f"--ray: {row['error']}")
            yield Part(row["number"], row["images"], row["content"], row["bad"])
    except ray.exceptions.RayError as error:
        raise UserError(f"--ray: {one_line(error)}") from None


class _Worker:
    """Computes parts in a process of Ray's, in which an error would come back with its traceback."""

    def __init__(self, job: PredictJob, plan: dict[str, Any], form: str) -> None:
        self.job, self.plan, self.form = job, plan, form
        self._opened: tuple[Any, Answers] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Return the part whose number is in `batch`."""
        number = int(batch["number"][0])
        part, failure = Part(number, 0, b"", b""), ""
        try:
            part = self._part(number)
        except UserError as error:
            failure = str(error)
        return {name: [value] for name, value in part._asdict().items()} | {"error": [failure]}

    def _part(self, number: int) -> Part:
        if self._opened is None:
            torch.set_num_threads(self.plan["threads"])
            images, answers = self.job.images(), self.job.open()
            if not same_table(self.job.header(images, answers), self.plan):
                raise UserError(
                    f"{self.job.source}: a worker finds other images or another model than this process"
                )
            self._opened = images, answers
        images, answers = self._opened
        (part,) = computed(
            images,
            answers,
            FORMATS[self.form],
            [number],
            part=self.plan["part"],
            batch_size=self.plan["batch_size"],
            workers=0,
        )
        return part
