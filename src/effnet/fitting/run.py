"""`effnet.fit`: a training by the same engine as the command line, and what is done with its result."""

import math
from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Unpack

from effnet.data.places import DataLike, data_place
from effnet.export.onnx import export_onnx
from effnet.export.openvino import export_openvino
from effnet.export.trained import ModelChoice, TrainedModel, open_trained
from effnet.export.weights import export_weights
from effnet.fitting.compose import compose_recipe
from effnet.fitting.figures import history_of, metrics_of
from effnet.fitting.folds import cross_validate, read_summary, runs_folds
from effnet.inference.classifier import Classifier, averaged_is_better, best_checkpoint, load
from effnet.inference.evaluate import evaluate
from effnet.inference.images import ImageLike
from effnet.models import model_config
from effnet.models.efficientnet import EfficientNet
from effnet.quantization.run import quantize
from effnet.recipe import Recipe
from effnet.recipe.keywords import Settings
from effnet.runtime.errors import UserError
from effnet.sharing.push import push
from effnet.training.resume import inherited_settings
from effnet.training.run import train

_AVERAGED = "weights-ema.safetensors"
# settings that say what the run's data is, and how it is divided
_OF_DATA = (
    *("source", "root", "path_column", "label_column", "label_separator", "split_column", "weight_column"),
    *("fold_column", "folds", "fold", "group_column", "val_split", "seed"),
)


class Run:
    """A training that has ended, in its workspace; `fit` returns one.

    Args:
        workspace: folder of the run.
        data: the images it was trained on, for `evaluate` and `quantize`, as `fit` takes them; None for synthetic ones.

    Attributes:
        workspace: folder of the run.
        data: as given.

    Raises:
        UserError: the workspace holds no checkpoint.
    """

    def __init__(self, workspace: str | PathLike[str], data: DataLike | None = None) -> None:
        self.workspace = Path(workspace)
        self.data = data_place(data)
        self.checkpoint = best_checkpoint(self.workspace)
        self._log = self.workspace / "report.json"

    def __repr__(self) -> str:
        shown = {name: value for name, value in self.metrics.items() if name in ("val.top1", "best_top1")}
        figures = "".join(f", {name} {value:.2f}" for name, value in shown.items())
        return f"Run({str(self.workspace)!r}{figures})"

    @property
    def history(self) -> list[dict[str, float]]:
        """Metrics of every epoch, such as `train.loss` and `val.top1`; the first is epoch 0."""
        return history_of(self._log)

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the last epoch, and the summary of the run, such as `best_top1` (percent)."""
        return metrics_of(self._log)

    @cached_property
    def averaged(self) -> bool:
        """True if the averaged weights (EMA) were the better ones in validation; the methods take them then."""
        return averaged_is_better(self.checkpoint)

    @cached_property
    def model(self) -> EfficientNet:
        """The best epoch's network in evaluation mode on the CPU; takes normalised images."""
        model = self._trained.model
        assert isinstance(model, EfficientNet)
        return model

    @property
    def _trained(self) -> TrainedModel:
        return open_trained(ModelChoice(weights=self.checkpoint, ema=self.averaged))

    @cached_property
    def classifier(self) -> Classifier:
        """The best epoch's classifier."""
        return load(self.checkpoint, ema=self.averaged)

    def predict(self, images: ImageLike | Sequence[ImageLike], *, topk: int | None = None) -> Any:
        """Classify images with the best epoch's weights; see `effnet.inference.classifier.Classifier`."""
        return self.classifier(images, topk=topk)

    def evaluate(self, data: DataLike | None = None, **settings: Unpack[Settings]) -> dict[str, float]:
        """Validate the best epoch's weights.

        Args:
            data: a path, such as a folder with ``val/<class>/``, or a PyTorch data set, all of which is validated; None
                for the images that the run validated on.
            settings: settings as for `fit`, such as `batch_size` or `engine`.

        Returns:
            `val.loss`, `val.top1`, `val.top5` (percent), `val.images`, rates and latencies; `val_ema.*` beside them
            for a run with averaged weights.

        Raises:
            UserError: settings or data that can't be used.
        """
        own = {"resume": str(self.checkpoint), "evaluate": True, "workspace": str(self.workspace)}
        recipe, _ = compose_recipe({**settings, **own})
        return evaluate(recipe, self.data if data is None else data_place(data, split="val"))

    def quantize(self, data: DataLike | None = None, **settings: Unpack[Settings]) -> "Run":
        """Quantize the best epoch's weights to INT8, after training unless `epochs` is given.

        Args:
            data: images to calibrate and validate on, as `fit` takes them; None for the run's own.
            settings: settings of ``effnet quantize``, such as `target`; its workspace is a folder in this run's unless
                given.

        Returns:
            The run of the quantized model.

        Raises:
            UserError: settings or data that can't be used.
        """
        given: dict[str, Any] = dict(settings)
        given.setdefault("epochs", 0)
        given.setdefault("workspace", str(self.workspace / f"int8-{given.get('target', 'tensorrt')}"))
        given.setdefault("arch", model_config(self.model.config.name).twin)
        given["pretrained_from_file"] = str(self._weights())
        if data is None:
            inherited = inherited_settings(self.checkpoint)
            given = {**{name: inherited[name] for name in _OF_DATA if name in inherited}, **given}
        recipe, _ = compose_recipe(given, command="quantize")
        place = self.data if data is None else data_place(data)
        quantize(recipe, place)
        return Run(given["workspace"], place)

    def _weights(self) -> Path:
        """Return a file whose first weights are the better ones."""
        if not self.averaged:
            return self.checkpoint
        path = self.workspace / _AVERAGED
        export_weights(self.checkpoint, path, ema=True)
        return path

    def export(self, path: str | PathLike[str], **options: Any) -> Path:
        """Write the best epoch's model to a file; of a graph only if its logits are PyTorch's.

        Args:
            path: the file; its suffix decides the format: ``.onnx``, ``.xml`` (OpenVINO), ``.safetensors``, ``.pth``.
            options: of `effnet.export.onnx.export_onnx` or `effnet.export.openvino.export_openvino`.

        Returns:
            The path.

        Raises:
            UserError: another suffix, a package that is missing, a file that can't be written, or other logits.
        """
        file = Path(path)
        writers = {".onnx": export_onnx, ".xml": export_openvino}
        if file.suffix in writers:
            trained = self._trained
            writers[file.suffix](trained.model, trained.metadata, file, **options)
        elif file.suffix in (".safetensors", ".pth"):
            export_weights(self.checkpoint, file, ema=self.averaged)
        else:
            raise UserError(f"{file}: models are written as .onnx, .xml, .safetensors or .pth")
        return file

    def push(
        self,
        repository: str,
        *,
        private: bool = False,
        message: str | None = None,
        licence: str | None = None,
    ) -> str:
        """Push the best epoch's model to the Hugging Face hub; see `effnet.sharing.push.push`.

        Args:
            repository: ``owner/name``; made if it does not exist.
            private: the repository is to be private.
            message: of the commit.
            licence: identifier such as ``apache-2.0``, which the model card names.

        Returns:
            The repository's address.

        Raises:
            UserError: no token, no permission, no network, or huggingface_hub is missing.
        """
        return push(self.workspace, repository, private=private, message=message, licence=licence)


class CrossValidation(Run):
    """A cross-validation that has ended (``folds=5``): the run of the best fold, with the figures of all.

    Args:
        workspace: folder of the runs.
        data: as in `Run`.

    Attributes:
        runs: the run of each fold.
        summary: content of ``folds.json``, as `effnet.fitting.folds.cross_validate` returns it.

    Raises:
        UserError: the workspace holds no summary, or no checkpoint.
    """

    def __init__(self, workspace: str | PathLike[str], data: DataLike | None = None) -> None:
        self.summary = read_summary(Path(workspace))
        self.runs = [Run(Path(workspace) / run["workspace"], data) for run in self.summary["runs"]]
        super().__init__(self._best().workspace, data)

    def __repr__(self) -> str:
        figures = self.summary["metrics"].get("best_top1", {"mean": math.nan, "std": math.nan})
        return (
            f"CrossValidation({len(self.runs)} folds, best_top1 {figures['mean']:.2f} ± {figures['std']:.2f})"
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of each metric over the folds."""
        return {name: figures["mean"] for name, figures in self.summary["metrics"].items()}

    @property
    def deviations(self) -> dict[str, float]:
        """Standard deviation of each metric over the folds."""
        return {name: figures["std"] for name, figures in self.summary["metrics"].items()}

    def _best(self) -> Run:
        """Return the run with the best top-1 accuracy."""
        return max(self.runs, key=lambda run: run.metrics.get("best_top1", -math.inf))


def fit(data: DataLike | None, *, recipe: str | None = None, **settings: Unpack[Settings]) -> Run:
    """Train a classifier, as ``effnet train`` or, for a quantized model, ``effnet quantize`` does.

    Args:
        data: a path, such as a folder with ``train/<class>/`` and ``val/<class>/``; a PyTorch `Dataset` of pairs of an
            image and a class, which is divided as a folder is; or a pair of them, or a mapping by ``train`` and
            ``val``. None with ``data_backend="synthetic"``.
        recipe: YAML file with settings, or the name of a published recipe; `settings` override it.
        settings: the recipe's settings, which are the command line's flags: ``batch_size=32`` is ``--batch-size 32``.
            The workspace is a new folder under ``runs/`` unless given.

    Returns:
        The finished run; with ``folds=5`` a `CrossValidation` of five.

    Raises:
        UserError: settings, weights or data that can't be used; the message is that of the command line.

    Example:
        >>> run = fit("my-images", arch="efficientnet-b0", epochs=5)  # doctest: +SKIP
        >>> run.metrics["best_top1"], run.predict("photo.jpg").best.name  # doctest: +SKIP
    """
    given: dict[str, Any] = dict(settings)
    if given.get("evaluate"):
        raise UserError("fit trains; to validate a run use Run.evaluate")
    if "workspace" not in given:
        given["workspace"] = str(_new_workspace())
    command = "quantize" if model_config(str(given.get("arch", "efficientnet-b0"))).quantized else "train"
    place = data_place(data)
    composed, sources = compose_recipe(given, command=command, recipe=recipe)
    work = quantize if model_config(composed.model.arch).quantized else train
    if runs_folds(composed):

        def compose(changes: dict[str, Any]) -> Recipe:
            return compose_recipe({**given, **changes}, command=command, recipe=recipe)[0]

        cross_validate(composed, sources, place, compose, work)
        return CrossValidation(given["workspace"], place)
    work(composed, place)
    return Run(given["workspace"], place)


def _new_workspace() -> Path:
    """Return the first folder ``runs/fit-N`` that does not exist."""
    number = 1
    while (folder := Path("runs") / f"fit-{number}").exists():
        number += 1
    return folder
