"""A whole training: from a recipe and a folder to checkpoints and a log."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from effnet.data import BACKENDS, DataRequest, DataSource, find_classes, open_data
from effnet.data.preprocessing import Preprocessing
from effnet.data.workers import worker_count
from effnet.kernels.accelerate import accelerate
from effnet.models import model_config
from effnet.models.efficientnet import EfficientNet
from effnet.recipe import Recipe
from effnet.runtime.affinity import bind_process
from effnet.runtime.errors import UserError
from effnet.runtime.log import RunLog
from effnet.runtime.memory import keep_freed_memory
from effnet.runtime.precision import Precision, tune_convolutions
from effnet.runtime.processes import Processes, joined_processes
from effnet.training.checkpoint import CheckpointFiles, prepare_workspace, resolve_resume
from effnet.training.defaults import resolve
from effnet.training.preflight import check_images
from effnet.training.setup import (
    Origin,
    build_model,
    find_origin,
    metadata_of,
    preprocessing_of,
    read_class_map,
    with_origin,
    workload_of,
)
from effnet.training.sync_bn import with_sync_batch_norm
from effnet.training.trainer import Progress, Trainer
from effnet.training.validate import Validator
from effnet.weights import Build, WeightsMetadata


@dataclass(frozen=True)
class Opened:
    """A run whose settings are settled, whose model is built and whose data is open."""

    recipe: Recipe
    origin: Origin
    model: EfficientNet
    data: DataSource
    preprocessing: Preprocessing
    precision: Precision
    processes: Processes
    metadata: WeightsMetadata

    def validator(self) -> Validator | None:
        """Validates on the run's validation set; None if it is not open."""
        if self.data.val is None:
            return None
        return Validator(
            self.data.val,
            self.preprocessing,
            self.precision,
            self.processes,
            topk=self.recipe.run.topk,
            max_batches=self.recipe.run.prof,
        )

    def trainer(self, given_recipe: Recipe, log: RunLog, files: CheckpointFiles | None = None) -> Trainer:
        """Trains the model on the run's training set, which must be open.

        Args:
            given_recipe: the settings before they were settled.
            log: where the training reports.
            files: where checkpoints go; None writes none.
        """
        assert self.data.train is not None
        return Trainer(
            self.recipe,
            self.model,
            self.data.train,
            self.validator(),
            preprocessing=self.preprocessing,
            precision=self.precision,
            processes=self.processes,
            files=files,
            log=log,
            metadata=self.metadata.to_dict(),
            given_recipe=given_recipe,
        )


def open_run(
    recipe: Recipe,
    path: Path | None,
    processes: Processes,
    splits: Sequence[str],
    *,
    build: Build = EfficientNet,
) -> Opened:
    """Settle what a recipe leaves open, build its model and open its data.

    Args:
        recipe: settings as given.
        path: folder of images; None with synthetic ones.
        processes: the processes of the run.
        splits: splits to open.
        build: makes the model of a configuration.

    Raises:
        UserError: settings, weights or data that can't be used.
    """
    if processes.device.type == "cpu":
        keep_freed_memory()
    origin = find_origin(recipe)
    recipe = with_origin(recipe, origin)
    # Only training may give the weights a new classifier.
    keeps_classifier = "train" not in splits
    classes = _classes(recipe, origin, keeps_classifier=keeps_classifier)
    found = len(classes or find_classes(recipe, path or Path(), splits))
    recipe = resolve(recipe, num_classes=found, world_size=processes.world_size)
    preprocessing = preprocessing_of(recipe, origin)
    precision = Precision(
        recipe.compute.precision,
        processes.device,
        static_loss_scale=recipe.compute.static_loss_scale,
        initial_loss_scale=recipe.compute.initial_loss_scale,
    )
    recipe = recipe.replace({"precision": precision.name})
    tune_convolutions(processes.device)
    torch.manual_seed(recipe.compute.seed + processes.rank)
    model = build_model(recipe, origin, processes.device, build=build, keeps_classifier=keeps_classifier)
    if recipe.compute.sync_bn and processes.world_size > 1:
        with_sync_batch_norm(model)
    if "train" in splits:
        accelerate(model, workload_of(recipe, processes.device), recipe.compute.kernels)
    place = processes.device, processes.rank, processes.world_size
    data = open_data(DataRequest(recipe, path or Path(), preprocessing, *place, splits, classes))
    metadata = metadata_of(model, preprocessing, data.classes)
    recipe = recipe.replace(
        {
            "resize": preprocessing.resize,
            "interpolation": preprocessing.interpolation,
            "workers": worker_count(recipe.data.workers, processes.world_size),
        }
    )
    # At the end: the workers' share of the cores is counted among all that this machine lends.
    bind_process(
        recipe.compute.gpu_affinity, processes.device, processes.local_rank, processes.local_world_size
    )
    return Opened(recipe, origin, model, data, preprocessing, precision, processes, metadata)


def _classes(recipe: Recipe, origin: Origin, *, keeps_classifier: bool) -> Sequence[str] | None:
    if not BACKENDS[recipe.data.data_backend].reads_path:
        return None
    if recipe.data.class_map is not None:
        return read_class_map(recipe.data.class_map)
    return origin.classes(keeps_classifier=keeps_classifier)


Prepare = Callable[[Opened, RunLog], object]
"""what is done to a run's model before it is trained"""


def train(
    recipe: Recipe,
    path: Path | None,
    *,
    build: Build = EfficientNet,
    prepare: Prepare | None = None,
) -> dict[str, float]:
    """Train as `recipe` says on the images in `path`.

    Args:
        recipe: settings; None stands for what `effnet.training.defaults` and the pretrained weights say.
        path: folder with ``train/<class>/`` and ``val/<class>/``; None with synthetic images.
        build: makes the model of a configuration.
        prepare: called with the opened run before its training begins, to change the model; a quantized model needs it.

    Returns:
        Metrics of the last epoch under the document's names, such as `train.loss` and `val.top1`.

    Raises:
        UserError: settings, weights or data that can't be used.
    """
    if recipe.schedule.epochs == 0:
        raise UserError("--epochs 0 trains nothing; it is for `effnet quantize`")
    if prepare is None and model_config(recipe.model.arch).quantized:
        raise UserError(f"--arch {recipe.model.arch} is trained by `effnet quantize` (quant_main.py)")
    workspace = Path(recipe.run.workspace)
    prepare_workspace(workspace)
    recipe = recipe.replace({"resume": resolve_resume(recipe.run)})
    with joined_processes(recipe.compute.device) as processes:
        splits = ("train",) if recipe.run.training_only else ("train", "val")
        opened = open_run(recipe, path, processes, splits, build=build)
        _check_same_start(opened)
        files = _checkpoint_files(opened.recipe, workspace)
        log_path = workspace / recipe.run.report_file
        with RunLog(log_path, append=recipe.run.resume is not None, is_main=processes.is_main) as log:
            announce(opened, log)
            check_images(opened.recipe, opened.data, processes, log)
            if prepare is not None:
                prepare(opened, log)
            trainer = opened.trainer(recipe, log, files)
            if opened.origin.checkpoint is not None:
                trainer.load_state_dict(opened.origin.checkpoint)
            metrics = trainer.run()
            _conclude(log, log_path, files, metrics, trainer.progress)
    return metrics


def _check_same_start(opened: Opened) -> None:
    checkpoint = opened.origin.checkpoint
    if not opened.processes.agree(None if checkpoint is None else checkpoint["epoch"]):
        raise UserError(
            "--resume: the processes found different checkpoints; all machines must share the --workspace"
        )


def _checkpoint_files(recipe: Recipe, workspace: Path) -> CheckpointFiles | None:
    if recipe.run.no_checkpoints or recipe.run.prof:
        return None
    return CheckpointFiles(workspace, recipe.run.checkpoint_filename, recipe.run.gather_checkpoints)


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
    log.record("parameters", {"recipe": opened.recipe.to_dict(), **facts})


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _conclude(
    log: RunLog, log_path: Path, files: CheckpointFiles | None, metrics: dict[str, float], progress: Progress
) -> None:
    """Say what the run left behind and what to do with it."""
    if "val.top1" in metrics:
        log.print(f"validation top-1: {metrics['val.top1']:.2f} %, best so far {progress.best_top1:.2f} %")
    log.print(f"log: {log_path}")
    if files is not None:
        best = files.best if files.best.exists() else files.latest
        ema = " --ema" if progress.best_is_ema else ""
        log.print(f"checkpoint: {files.latest}; the best: {best}")
        log.print(f"classify an image: effnet classify --pretrained-from-file {best}{ema} IMAGE")
