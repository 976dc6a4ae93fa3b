"""A model repository for Triton Inference Server: the model, its preprocessing, and both as one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from effnet.data.preprocessing import Preprocessing
from effnet.export.onnx import ExportedFile
from effnet.export.reference import Precision, check_difference, checked_answers
from effnet.export.tensorrt import TensorRtPlan
from effnet.export.triton.backends import BACKENDS
from effnet.export.triton.chain import Chain, by_onnxruntime
from effnet.export.triton.models import VERSION, Models, configurations, write_configuration
from effnet.export.triton.preprocess import export_preprocessing
from effnet.export.triton.settings import TritonSettings
from effnet.export.whole import WholeReference
from effnet.models.efficientnet import EfficientNet
from effnet.runtime.disk import check_new_folder
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_folder
from effnet.runtime.progress import working
from effnet.weights import WeightsMetadata

__all__ = ["TritonRepository", "TritonSettings", "export_triton"]


@dataclass(frozen=True)
class TritonRepository:
    """A model repository that has been written.

    Attributes:
        path: its folder.
        models: configurations of its models.
        exported: the network's file, or the ONNX file that TensorRT builds it from.
        plan: of TensorRT; None for another backend.
        difference: largest difference of a logit to PyTorch's validation, over images of several sizes.
        images: sizes of these images, (height, width).
    """

    path: Path
    models: Models
    exported: ExportedFile
    plan: TensorRtPlan | None
    difference: float
    images: tuple[tuple[int, int], ...]

    def lines(self) -> list[str]:
        """Return what to tell of it."""
        return [
            str(self.exported),
            f"{self.path / self.models.whole.name}: images of {len(self.images)} sizes, run here as the "
            f"configurations say, differ from PyTorch's validation by at most {self.difference:.1e}",
        ]


def export_triton(
    model: EfficientNet,
    metadata: WeightsMetadata,
    folder: Path,
    settings: TritonSettings | None = None,
    *,
    precision: Precision = "fp32",
    preprocessing_in_graph: bool = False,
    device: torch.device | str = "cpu",
) -> TritonRepository:
    """Write a model repository.

    It holds three models: NAME takes what `export_onnx` says and returns logits and probabilities; NAME-preprocess
    resizes, crops and normalises uint8 (N, H, W, 3) images as validation does; NAME-whole is the ensemble of both.

    The folder is written only if its files, run as the configurations say, return the logits of PyTorch's validation
    for images of several sizes. They are run by onnxruntime, and those for OpenVINO by OpenVINO; of a TensorRT engine
    the ONNX file is run that it is built from.

    Args:
        model: takes normalised images float32 (N, 3, H, W), returns logits (N, classes); in evaluation mode.
        metadata: classes, preprocessing and temperature.
        folder: to write; must be empty if it exists.
        settings: backend, name, batches and instances; None for the defaults.
        precision: as for `export_onnx`, `export_openvino` or `export_tensorrt`.
        preprocessing_in_graph: NAME takes uint8 (N, S, S, 3) and normalises itself.
        device: where PyTorch computes the logits to compare with.

    Raises:
        UserError: the folder has something in it or can't be written, a package is missing, or other logits than
            PyTorch's.
    """
    settings = settings or TritonSettings()
    check_new_folder(folder)
    models = configurations(model, metadata, settings, takes_bytes=preprocessing_in_graph)
    backend = BACKENDS[settings.backend]
    preprocessing = Preprocessing.from_dict(metadata.preprocessing)
    with _folder(folder) as unfinished:
        for config in models:
            write_configuration(config, metadata, unfinished / config.name)
        written = backend.export(
            model,
            metadata,
            unfinished / models.network.name / VERSION / backend.file,
            precision=precision,
            preprocessing_in_graph=preprocessing_in_graph,
            probabilities=True,
            device=device,
            **backend.options(settings),
        )
        plan = written if isinstance(written, TensorRtPlan) else None
        exported = written.onnx if isinstance(written, TensorRtPlan) else written
        prepares = unfinished / models.preprocessing.name / VERSION / "model.onnx"
        with working("writing the preprocessing"):
            export_preprocessing(preprocessing, prepares, as_bytes=preprocessing_in_graph)
        run = backend.run(exported.path, model.config.quantized)
        chain = Chain(models.whole, [(models.network, run), (models.preprocessing, by_onnxruntime(prepares))])
        only = 1 if settings.max_batch_size == 1 else None
        reference = WholeReference(model, preprocessing, batch_size=only, device=device)
        with working("comparing with PyTorch"):
            difference = reference.difference(
                lambda images: checked_answers(chain(images), metadata, unfinished)
            )
            check_difference(unfinished, difference, reference.tolerance(precision))
    exported = replace(exported, path=_moved(exported.path, unfinished, folder))
    if plan is not None:
        plan = replace(plan, onnx=exported, path=_moved(plan.path, unfinished, folder))
    return TritonRepository(folder, models, exported, plan, difference, reference.sizes)


@contextmanager
def _folder(folder: Path) -> Iterator[Path]:
    """`atomic_folder`, with its own name in errors."""
    with atomic_folder(folder) as unfinished:
        try:
            yield unfinished
        except UserError as error:
            raise type(error)(str(error).replace(str(unfinished), str(folder))) from None


def _moved(path: Path, old: Path, new: Path) -> Path:
    return new / path.relative_to(old)
