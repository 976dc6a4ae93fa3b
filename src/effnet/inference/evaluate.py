"""Accuracy and speed of a model on a validation set."""

from pathlib import Path

from effnet.recipe import Recipe
from effnet.training.checkpoint import prepare_workspace
from effnet.training.distributed import joined_processes
from effnet.training.log import RunLog
from effnet.training.run import open_run


def evaluate(recipe: Recipe, path: Path | None) -> dict[str, float]:
    """Validate what `recipe` names: a checkpoint (`resume`), a weight file or published weights.

    Args:
        recipe: settings.
        path: folder with ``val/<class>/``; None with synthetic images.

    Returns:
        `val.loss`, `val.top1`, `val.top5` (percent), rates and latencies; `val_ema.*` beside them where the
        checkpoint holds averaged weights.

    Raises:
        UserError, ModelError: settings, weights or data that can't be used.
    """
    workspace = Path(recipe.run.workspace)
    prepare_workspace(workspace)
    with joined_processes(recipe.compute.device) as processes:
        opened = open_run(recipe, path, processes, ("val",))
        validator = opened.validator()
        assert validator is not None
        checkpoint = opened.origin.checkpoint or {}
        metrics: dict[str, float] = {}
        for prefix, entry in (("val", "state_dict"), ("val_ema", "state_dict_ema")):
            if entry in checkpoint:
                opened.model.load_state_dict(checkpoint[entry])
            elif prefix != "val":
                continue
            metrics |= {f"{prefix}.{name}": value for name, value in validator(opened.model).items()}
        with RunLog(workspace / recipe.run.report_file, append=True, is_main=processes.is_main) as log:
            log.record("parameters", {"recipe": opened.recipe.to_dict()})
            log.record("summary", metrics)
            for name, value in metrics.items():
                log.print(f"{name} {value:.6g}")
    return metrics
