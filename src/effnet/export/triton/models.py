"""The three models of a repository: their configurations, and the files beside these."""

from pathlib import Path
from typing import NamedTuple

from effnet.export.facts import INPUT, OUTPUT, PROBABILITIES
from effnet.export.triton.config import LABELS_FILE, ModelConfig, Step, Tensor
from effnet.export.triton.preprocess import PREPARED
from effnet.export.triton.settings import TritonSettings
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.errors import one_line
from effnet.weights import WeightsMetadata

VERSION = "1"
"""folder of a model's only version"""
_ENSEMBLE_NOTE = "An ensemble has no file of its own, but its folder must exist.\n"


class Models(NamedTuple):
    """The configurations of a repository's models."""

    network: ModelConfig
    preprocessing: ModelConfig
    whole: ModelConfig


def configurations(
    model: EfficientNet, metadata: WeightsMetadata, settings: TritonSettings, *, takes_bytes: bool
) -> Models:
    """Return the configurations of the network, of the preprocessing and of both together.

    All take the same largest batch. Images of one request have one size, since they are one tensor, so that the
    preprocessing takes batches as well; but requests have images of different sizes, so that the server batches none
    before they are prepared.

    Args:
        model: the network.
        metadata: its classes and preprocessing.
        settings: of the repository.
        takes_bytes: the network normalises itself.
    """
    name = settings.name or metadata.model
    largest, side = settings.max_batch_size, metadata.preprocessing["image_size"]
    dtype, dims = ("uint8", (side, side, 3)) if takes_bytes else ("float32", (3, side, side))
    images = Tensor(INPUT, "uint8", (-1, -1, 3))
    named = bool(metadata.class_names())
    outputs = tuple(
        Tensor(each, "float32", (model.config.num_classes,), named) for each in (OUTPUT, PROBABILITIES)
    )
    network = ModelConfig(
        name,
        largest,
        (Tensor(INPUT, dtype, dims),),
        outputs,
        settings.backend,
        settings.instances,
        settings.runs_on,
        settings.batching,
    )
    preprocessing = ModelConfig(
        f"{name}-preprocess",
        largest,
        (images,),
        (Tensor(PREPARED, dtype, dims),),
        "onnxruntime",
        settings.instances,
    )
    steps = (
        Step(preprocessing.name, {INPUT: INPUT}, {PREPARED: PREPARED}),
        Step(name, {INPUT: PREPARED}, {output.name: output.name for output in outputs}),
    )
    return Models(
        network, preprocessing, ModelConfig(f"{name}-whole", largest, (images,), outputs, steps=steps)
    )


def write_configuration(config: ModelConfig, metadata: WeightsMetadata, folder: Path) -> None:
    """Write a model's folder without the model's file.

    Args:
        config: the model's configuration.
        metadata: names of the classes.
        folder: to make.
    """
    (folder / VERSION).mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config.text(), encoding="utf-8")
    if any(output.labelled for output in config.outputs):
        labels = "".join(f"{one_line(name)}\n" for name in metadata.class_names())
        (folder / LABELS_FILE).write_text(labels, encoding="utf-8")
    if config.steps:
        (folder / VERSION / "README").write_text(_ENSEMBLE_NOTE, encoding="utf-8")
