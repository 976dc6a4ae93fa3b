"""The run of `effnet quantize`: from a recipe, weights and a folder to a calibrated or trained INT8 model."""

from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from effnet.data import DataPlace
from effnet.models import model_config
from effnet.quantization.calibrate import calibrate
from effnet.quantization.images import calibration_batches
from effnet.quantization.layers import quantizers_of
from effnet.quantization.model import build
from effnet.quantization.placement import place_quantizers
from effnet.quantization.sensitivity import LayerCost, sensitivity
from effnet.quantization.targets import TARGETS
from effnet.recipe import Recipe
from effnet.recipe.resolved import ResolvedQuantization
from effnet.runtime.errors import UserError
from effnet.runtime.lock import one_writer
from effnet.runtime.log import RunLog
from effnet.runtime.processes import joined_processes
from effnet.runtime.progress import silent
from effnet.training.checkpoint import CheckpointFiles
from effnet.training.resume import resume_path
from effnet.training.run import announce, train
from effnet.training.setup import Opened, open_run
from effnet.training.step import Normalise
from effnet.training.workspace import prepare_workspace

SENSITIVITY_BATCHES = 1


def quantize(recipe: Recipe, path: DataPlace | None) -> dict[str, float]:
    """Quantize as `recipe` says: place quantizers, calibrate, and train unless `epochs` is 0.

    Args:
        recipe: settings; the model is a quantized one, `efficientnet-quant-*`.
        path: folder with ``train/<class>/`` and ``val/<class>/``; only the latter without training. None with
            synthetic images.

    Returns:
        Metrics of the last epoch, or of validation after calibration, and `calib.*` where there was any.

    Raises:
        UserError: settings, weights or data that can't be used; no weights, unless `from_scratch` says so.
    """
    config = model_config(recipe.model.arch)
    if not config.quantized:
        raise UserError(f"--arch {config.name} has no quantizers; use --arch {config.twin}")
    _check_start(recipe)
    if recipe.schedule.epochs == 0 or recipe.quantization.sensitivity:
        return _quantize_after_training(recipe, path)
    return train(recipe, path, build=build, prepare=partial(_prepare, path))


def _check_start(recipe: Recipe) -> None:
    sources = {
        "--pretrained": recipe.model.pretrained,
        "--pretrained-from-file": recipe.model.pretrained_from_file,
        "--resume": resume_path(recipe.run),
    }
    given = [flag for flag, value in sources.items() if value]
    if not given and not recipe.quantization.from_scratch:
        raise UserError(
            "quantization starts from trained weights; give --pretrained-from-file FILE, --pretrained or --resume, or "
            "--from-scratch to quantize a model with random weights all the same"
        )
    if recipe.quantization.from_scratch and given and "--resume" not in given:
        raise UserError(f"--from-scratch and {given[0]} contradict each other; give one")


def _prepare(path: DataPlace | None, opened: Opened, log: RunLog) -> dict[str, float]:
    """Place and calibrate the quantizers of a model that is about to be trained or validated."""
    settings = opened.recipe.quantization
    place_quantizers(opened.model, settings.target, settings.keep_float, reduce_range=settings.reduce_range)
    if opened.origin.checkpoint is not None:
        return {}  # which brings its ranges
    if settings.skip_calibration:
        _check_ranges(opened)
        return {}
    metrics = calibrate(
        opened.model,
        calibration_batches(opened.recipe, path, opened),
        opened.preprocessing,
        opened.precision,
        opened.processes,
        settings,
    )
    named = {f"calib.{name}": value for name, value in metrics.items()}
    log.record("calibration", named)
    log.print(
        f"calibrated for {settings.target}: {metrics['total_ips']:.1f} images/s, waited {metrics['data_time']:.3f} s "
        f"and computed {metrics['compute_latency']:.3f} s a batch"
    )
    log.print(_weights_line(settings))
    return named


def _weights_line(settings: ResolvedQuantization) -> str:
    """Return the weights' width and rounding, and for which CPUs they are."""
    rounding = "rounded by GPTQ" if settings.rounding == "gptq" else "rounded to nearest"
    if not TARGETS[settings.target].on_x86:
        return f"weights in 8 bits, {rounding}"
    if settings.reduce_range:
        return f"weights in 7 bits, {rounding}, for all CPUs (--cpu any)"
    return f"weights in 8 bits, {rounding}, for CPUs with VNNI and for ARM (--cpu vnni); for others give --cpu any"


def _check_ranges(opened: Opened) -> None:
    for name, quantizer in quantizers_of(opened.model).items():
        if quantizer.is_on and not quantizer.has_range:
            raise UserError(
                f"--skip-calibration: the weights bring no range for {name}; calibrate, or give the --target that they "
                "were quantized for"
            )


def _quantize_after_training(recipe: Recipe, path: DataPlace | None) -> dict[str, float]:
    workspace = prepare_workspace(recipe.run)
    if recipe.run.resume:
        raise UserError(
            "--resume goes on with a training; without one, give the weights by --pretrained-from-file"
        )
    with (
        silent(recipe.run.quiet),
        joined_processes(recipe.compute.device, timeout=recipe.compute.collective_timeout) as processes,
        one_writer(workspace, processes),
    ):
        opened = open_run(recipe, path, processes, ("val",), build=build)
        with RunLog(
            workspace / recipe.run.report_file, is_main=processes.is_main, quiet=recipe.run.quiet
        ) as log:
            announce(opened, log)
            metrics = _prepare(path, opened, log)
            if recipe.quantization.sensitivity:
                _report(_sensitivity(path, opened), log)
                return metrics
            validator = opened.validator()
            assert validator is not None
            found, confidence = opened.validate(validator, opened.model)
            metrics |= {f"val.{name}": value for name, value in found.items()}
            log.record("summary", metrics)
            log.print(f"validation top-1: {metrics['val.top1']:.2f} % of {metrics['val.images']:.0f} images")
            if processes.is_main and not recipe.run.no_checkpoints:
                known = {} if confidence is None else {"val": confidence}
                _save(opened, metrics, opened.description(known, validator.thresholds_found()), log)
    return metrics


def _save(opened: Opened, metrics: dict[str, float], description: dict[str, Any], log: RunLog) -> None:
    run = opened.recipe.run
    files = CheckpointFiles(Path(run.workspace), run.checkpoint_filename, 0, run.write_retry)
    content = {
        "epoch": 0,
        "best_prec1": metrics["val.top1"],
        "state_dict": opened.model.state_dict(),
        **description,
    }
    files.save(content, is_best=True)
    files.flush()
    log.print(f"quantized weights: {files.best}")
    target = opened.recipe.quantization.target
    form = target if TARGETS[target].opset is None else "onnx"
    log.print(f"to run them in an engine: effnet export {form} --pretrained-from-file {files.best}")


def _sensitivity(path: DataPlace | None, opened: Opened) -> list[LayerCost]:
    normalise = Normalise(opened.preprocessing).to(opened.processes.device)
    batches = islice(calibration_batches(opened.recipe, path, opened), SENSITIVITY_BATCHES)
    return sensitivity(opened.model, [normalise(batch.images) for batch in batches])


def _report(costs: list[LayerCost], log: RunLog) -> None:
    width = max(len(cost.layer) for cost in costs)
    log.print(f"{'quantized alone':{width}}  logit error  same class")
    for cost in costs:
        log.print(f"{cost.layer:{width}}  {100 * cost.error:9.3f} %  {cost.agreement:8.1f} %")
        log.record("sensitivity", {"layer": cost.layer, "error": cost.error, "agreement": cost.agreement})
