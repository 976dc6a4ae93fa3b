"""Training from start to end: from a recipe and a folder to checkpoints and a log."""

from collections.abc import Callable
from pathlib import Path

import torch

from effnet.data import DataPlace
from effnet.data.sources.record import FILE as SPLIT_FILE
from effnet.models import model_config
from effnet.models.efficientnet import EfficientNet
from effnet.recipe import Recipe, ResolvedRecipe
from effnet.runtime.errors import UserError
from effnet.runtime.lock import one_writer
from effnet.runtime.log import RunLog
from effnet.runtime.machine import machine
from effnet.runtime.processes import joined_processes
from effnet.runtime.progress import silent
from effnet.runtime.signals import handled_signals
from effnet.training.batch_size import fitting_batch_size
from effnet.training.checkpoint import CheckpointFiles
from effnet.training.moments import Interval, Moments
from effnet.training.preflight import check_images
from effnet.training.probe import probe
from effnet.training.setup import Opened, open_run
from effnet.training.state import Progress
from effnet.training.tracking import Tracking, check_trackers
from effnet.training.trainer import Trainer
from effnet.training.workspace import check_room_for, prepare_workspace
from effnet.weights import Build

FEW_IMAGES = 20_000
"""training images below which a run from scratch names the command for fine-tuning"""

Prepare = Callable[[Opened, RunLog], object]
"""changes the model of a run before it is trained"""


def train(
    recipe: Recipe,
    path: DataPlace | None,
    *,
    build: Build = EfficientNet,
    prepare: Prepare | None = None,
) -> dict[str, float]:
    """Train as a recipe says on a folder of images.

    Args:
        recipe: settings as given.
        path: a data source (`effnet.data.sources`), or data sets; None with synthetic images.
        build: makes the model of a configuration.
        prepare: called with the opened run before its training begins, to change the model; a quantized model needs it.

    Returns:
        Metrics of the last epoch under the names of NVIDIA's README, such as `train.loss` and `val.top1`.

    Raises:
        UserError: settings, weights or data that can't be used.
        Interrupted: a signal has ended the run.
    """
    if recipe.schedule.epochs == 0:
        raise UserError("--epochs 0 trains nothing; it is for `effnet quantize`")
    if prepare is None and model_config(recipe.model.arch).quantized:
        raise UserError(f"--arch {recipe.model.arch} is trained by `effnet quantize` (quant_main.py)")
    every = None if recipe.run.checkpoint_every is None else Interval.parse(recipe.run.checkpoint_every)
    check_trackers(recipe.run.track)
    workspace = prepare_workspace(recipe.run)
    with (
        silent(recipe.run.quiet),
        handled_signals() as signals,
        joined_processes(recipe.compute.device, timeout=recipe.compute.collective_timeout) as processes,
        one_writer(workspace, processes),
    ):
        if recipe.optimizer.batch_size is None:
            recipe = recipe.replace({"batch_size": fitting_batch_size(recipe, path, processes, build=build)})
        splits = ("train",) if recipe.run.training_only else ("train", "val")
        opened = open_run(recipe, path, processes, splits, build=build)
        _check_same_start(opened)
        files = _checkpoint_files(opened.recipe, workspace)
        log_path = workspace / recipe.run.report_file
        with _open_log(log_path, opened) as log:
            announce(opened, log)
            if opened.data.made_split is not None and processes.is_main:
                opened.data.made_split.write_csv(workspace / SPLIT_FILE)
            if files is not None and opened.origin.resume is None and files.latest.is_file():
                log.print(
                    f"{workspace} holds an earlier run's checkpoints, which this run replaces; see --resume"
                )
            check_images(opened.recipe, opened.data, processes, log)
            if prepare is not None:
                prepare(opened, log)
            elif opened.recipe.model.probe and opened.origin.resume is None:
                probe(opened, log)
            trainer = Trainer(opened, log, files, Moments(processes, signals, every))
            if opened.origin.checkpoint is not None:
                trainer.resume(opened.origin.checkpoint)
            if files is not None:
                check_room_for(trainer.checkpoint(), workspace)
            with _tracking(trainer, log, log_path) as tracking:
                with signals.deferred():
                    metrics = trainer.run()
                    confusion = trainer.validations.whole_confusion()
                tracking.confusion(confusion, trainer.state.progress.epoch * trainer.steps_per_epoch)
                _show_best(tracking, files)
            _conclude(log, log_path, files, metrics, trainer.state.progress)
    return metrics


def _open_log(path: Path, opened: Opened) -> RunLog:
    checkpoint = opened.origin.checkpoint
    return RunLog(
        path,
        append=checkpoint is not None,
        is_main=opened.processes.is_main,
        after=None if checkpoint is None else checkpoint.get("log"),
        quiet=opened.recipe.run.quiet,
    )


def _tracking(trainer: Trainer, log: RunLog, log_path: Path) -> Tracking:
    """Return the trackers of a run, which only the main process has."""
    opened, progress = trainer.opened, trainer.state.progress
    resumes = opened.origin.checkpoint is not None
    return Tracking(
        opened.recipe.run.track if opened.processes.is_main else (),
        log,
        log_path,
        trainer.steps_per_epoch,
        progress.epoch * trainer.steps_per_epoch + trainer.state.in_epoch.batches if resumes else None,
    )


def _show_best(tracking: Tracking, files: CheckpointFiles | None) -> None:
    if files is not None:
        tracking.model(files.best if files.best.exists() else files.latest)


def _check_same_start(opened: Opened) -> None:
    checkpoint = opened.origin.checkpoint or {}
    start = checkpoint.get("epoch"), checkpoint.get("progress", {}).get("step"), checkpoint.get("digest")
    if not opened.processes.agree(start):
        raise UserError(
            "--resume: the processes found different checkpoints; all machines must share the --workspace"
        )


def _checkpoint_files(recipe: ResolvedRecipe, workspace: Path) -> CheckpointFiles | None:
    if recipe.run.no_checkpoints or recipe.run.prof is not None:
        return None
    run = recipe.run
    return CheckpointFiles(workspace, run.checkpoint_filename, run.gather_checkpoints, run.write_retry)


def announce(opened: Opened, log: RunLog) -> None:
    """Print and record every setting, the machine and the data."""
    for group, values in opened.recipe.to_dict().items():
        if group == "quantization" and not opened.model.config.quantized:
            continue
        log.print(f"{group}: {', '.join(f'{name} {_shown(value)}' for name, value in values.items())}")
    device = opened.processes.device
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "world_size": opened.processes.world_size,
        "train_images": opened.data.train.num_images if opened.data.train else 0,
        "val_images": opened.data.val.num_images if opened.data.val else 0,
        "classes": len(opened.data.classes),
        "torch": torch.__version__,
    }
    log.print(f"run: {', '.join(f'{name} {value}' for name, value in facts.items())}")
    if (hint := _hint(opened)) is not None:
        log.print(hint)
    if not log.goes_on:
        log.record("parameters", {"recipe": opened.recipe.to_dict(), **facts, "machine": machine()})


def _hint(opened: Opened) -> str | None:
    """Return what would be better than training a small set from scratch; None where that is not done."""
    data = opened.data.train
    starts_fresh = opened.origin.weights is None and opened.origin.checkpoint is None
    if data is None or not starts_fresh or not opened.data.names.get("train"):
        return None
    if data.num_images >= FEW_IMAGES:
        return None
    return (
        f"note: {data.num_images:,} images are few to train from scratch; to fine-tune instead: effnet train DIR "
        "--recipe finetune, or effnet init DIR for a recipe that suits them"
    )


def _shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _conclude(
    log: RunLog, log_path: Path, files: CheckpointFiles | None, metrics: dict[str, float], progress: Progress
) -> None:
    """Name the files of the run and the command that uses them."""
    if "val.top1" in metrics:
        log.print(f"validation top-1: {metrics['val.top1']:.2f} %, best so far {progress.best_top1:.2f} %")
    log.print(f"log: {log_path}")
    if files is not None:
        best = files.best if files.best.exists() else files.latest
        ema = " --ema" if progress.best_is_ema else ""
        log.print(f"checkpoint: {files.latest}; the best: {best}")
        log.print(f"classify an image: effnet classify --pretrained-from-file {best}{ema} IMAGE")
