"""Predictions for every image of a source: resumable, by several machines, in flat memory."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from effnet.data.sources import SourceImages
from effnet.data.workers import worker_count
from effnet.inference.classifier import choice_of
from effnet.inference.engine import AUTO
from effnet.inference.predict.answers import Answers
from effnet.inference.predict.computing import Part, computed
from effnet.inference.predict.formats import format_of
from effnet.inference.predict.formats.form import OutputFormat
from effnet.inference.predict.job import PredictJob, same_table
from effnet.inference.predict.on_ray import ray_parts
from effnet.inference.predict.work import Shard, Work, bad_list, count_bad, folder_of, plan_of
from effnet.runtime.disk import check_writable
from effnet.runtime.errors import UserError
from effnet.runtime.progress import ProgressBar
from effnet.runtime.signals import Interrupted

_LOG = logging.getLogger("effnet")
_LINE_S = 30.0
"""seconds between two lines about the progress, where there is no terminal"""


@dataclass(frozen=True)
class PredictSummary:
    """The result of a call of `predict`.

    Attributes:
        out: file of the table.
        complete: the table is written; False while parts of other shards are missing.
        images: images of the source.
        computed: images that this call looked at.
        bad: images that can't be decoded, of the whole table; None while it is not complete.
        bad_list: file that lists them; None where there are none.
        seconds: from the first batch to the last.
    """

    out: str
    complete: bool
    images: int
    computed: int
    bad: int | None
    bad_list: str | None
    seconds: float

    @property
    def images_per_s(self) -> float:
        """Images that this call looked at by second."""
        return self.computed / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "images_per_s": self.images_per_s}


def predict(
    source: str | PathLike[str],
    model: str | PathLike[str],
    out: str | PathLike[str],
    *,
    engine: str | None = None,
    device: str = "auto",
    image_size: int | None = None,
    precision: str = "fp32",
    batch_size: int = 32,
    topk: int = 5,
    probabilities: bool = False,
    features: bool = False,
    tta: str = "none",
    workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    ray: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> PredictSummary:
    """Write a model's predictions for every image of a source to a table, as ``effnet predict`` does.

    A call that was killed or interrupted goes on where it was, and leaves the same bytes as one that was not. Images
    that can't be decoded are listed in ``OUT.bad.csv``.

    Args:
        source: the images: a folder, whose subfolders are searched, a table of paths, or another data source of
            `fit`.
        model: as for `effnet.load`.
        out: file to write: ``.parquet`` (extra ``tables``), ``.csv`` or ``.jsonl``.
        engine: as for `effnet.load`, like the following ones.
        device: ``auto``, ``cuda`` or ``cpu``.
        image_size: side of the input in pixels; None for the weights'.
        precision: arithmetic in PyTorch.
        batch_size: images in a batch.
        topk: classes to name for each image.
        probabilities: add a column with the probabilities of all classes.
        features: add a column with the pooled features, float32; for weights in PyTorch.
        tta: average the probabilities over views of each image, as for `effnet.load`; not with `features`.
        workers: processes that decode images; None for one a core, at most 16.
        shard: number from 0, and count, of the share to compute; whoever ends last writes the table.
        overwrite: replace a table that is complete, or begun with other arguments.
        ray: address of a Ray cluster that computes the parts (extra ``ray``); ``local`` for Ray on this machine.
        data: settings of the source by name, such as ``{"path_column": "file", "root": "photos"}``.

    Returns:
        Counts and speed.

    Raises:
        UserError: arguments, a model or a source that can't be used, or a file that can't be written.

    Example:
        >>> summary = predict("photos", "efficientnet-lite0", "photos.parquet")  # doctest: +SKIP
        >>> summary.images, summary.bad  # doctest: +SKIP
        (200000, 2)
    """
    choice = replace(choice_of(model), device=device, image_size=image_size, precision=precision)
    job = PredictJob(Path(source), choice, data or {}, engine, batch_size, topk, probabilities, features, tta)
    return run_job(job, Path(out), workers=workers, shard=shard, overwrite=overwrite, ray=ray)


def run_job(
    job: PredictJob,
    out: Path,
    *,
    workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    ray: str | None = None,
) -> PredictSummary:
    """Compute a share of a table; see `predict`.

    Raises:
        UserError: as `predict`.
    """
    form = format_of(out)
    check_writable(out, flag="--out")
    finished = out.exists() and not overwrite and not folder_of(out).exists()
    header = form.header(out) if finished else None
    if finished and header is None:
        raise UserError(f"--out {out} exists; name another file, or give --overwrite")
    images = job.images()
    job = job.continuing(header if finished else None if overwrite else plan_of(out))
    answers = job.open(len(images), is_shared=shard[1] > 1 or ray is not None)
    if job.engine == AUTO:
        job = replace(job, engine=str(answers.engine.candidate))
    work = Work(out, job.header(images, answers))
    if finished:
        if not same_table(header, work.plan):
            raise UserError(f"--out {out} is another table; name another file, or give --overwrite")
        return _summary(work, True, 0, 0.0)
    work.begin(overwrite=overwrite)
    share = Shard(*shard)
    done, began = 0, time.monotonic()
    with work.held(f"shard-{share.number}-of-{share.count}") as is_there:
        missing = work.missing(share) if is_there else []
        if ray is None or not missing:
            source = _here(images, answers, form, missing, work.plan, worker_count(workers))
        else:
            del images  # of no use here
            source = ray_parts(
                job,
                work.plan,
                form.name,
                missing,
                address=ray,
                workers=worker_count(workers),
                device=answers.engine.device.type,
            )
        with source as parts:
            began = time.monotonic()
            done = _written(work, share, missing, parts)
    seconds = time.monotonic() - began
    return _summary(work, _finish(work), done, seconds)


@contextmanager
def _here(
    images: SourceImages,
    answers: Answers,
    form: OutputFormat,
    missing: list[int],
    plan: Mapping[str, Any],
    workers: int,
) -> Iterator[Iterator[Part]]:
    """Yield an iterator over parts that this process computes, by the threads of the call that began the table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(plan["threads"])
    part, batch_size = plan["part"], plan["batch_size"]
    useful = len(missing) * part // batch_size
    try:
        yield computed(
            images,
            answers,
            form,
            missing,
            part=part,
            batch_size=batch_size,
            workers=min(workers, useful),
        )
    finally:
        torch.set_num_threads(threads)


def merge(out: Path) -> PredictSummary:
    """Write a table from the parts of its shards.

    Raises:
        UserError: there are none, or some are missing.
    """
    format_of(out)
    check_writable(out, flag="--out")
    work = Work.found(out)
    with work.held("join") as is_there:
        if is_there:
            work.join()
    return _summary(work, True, 0, 0.0)


def _summary(work: Work, complete: bool, computed: int, seconds: float) -> PredictSummary:
    bad = count_bad(work.out) if complete else None
    listed = str(bad_list(work.out)) if bad else None
    return PredictSummary(str(work.out), complete, work.images, computed, bad, listed, seconds)


def _written(work: Work, shard: Shard, missing: list[int], parts: Iterator[Part]) -> int:
    """Write parts as they come; return their images."""
    total = work.images_of(shard.parts(work.parts))
    before = total - work.images_of(missing)
    if before:
        _LOG.info("%s: %s of %s images are done already", work.folder, f"{before:,}", f"{total:,}")
    done, began = 0, time.monotonic()
    told = began
    try:
        with ProgressBar("predicting", total, done=before) as bar:
            for part in parts:
                work.write(part)
                done += part.images
                bar.advance(part.images)
                if (now := time.monotonic()) - told >= _LINE_S:
                    told, rate = now, done / (now - began)
                    _LOG.info("%s of %s images, %.0f images/s", f"{before + done:,}", f"{total:,}", rate)
    except Interrupted as interruption:
        kept = total - work.images_of(work.missing(shard))
        interruption.state = f"{kept:,} of {total:,} images are done; the same command goes on"
        raise
    return done


def _finish(work: Work) -> bool:
    """Write a table if all of its parts are there; of several processes one does, and the others wait for it."""
    with work.held("join") as is_there:
        if not is_there:
            return True
        if work.missing(Shard()):
            return False
        work.join()
        return True
