"""Where a run starts from: fresh weights, published ones, a file, or a checkpoint to resume."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effnet.data.sources import SplitRecord
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.training.checkpoint import read_checkpoint
from effnet.training.resume import resume_path
from effnet.weights import WeightsMetadata, published_tag, read_metadata
from effnet.weights.files import read_torch_file
from effnet.weights.hub import local_source


@dataclass(frozen=True)
class Origin:
    """Where a run starts from.

    Attributes:
        weights: argument of `create_model`: a publisher's tag, a path, or None for fresh weights.
        resume: path of the checkpoint to resume, which then holds the weights; None for none.
        checkpoint: its content.
        metadata: of the weights or the checkpoint.
    """

    weights: str | None = None
    resume: str | None = None
    checkpoint: Mapping[str, Any] | None = None
    metadata: WeightsMetadata | None = None

    @property
    def name(self) -> str:
        """The checkpoint or weights, for messages."""
        return str(self.resume or self.weights or "the model")

    def stored_split(self) -> SplitRecord | None:
        """Return the split of the run that wrote the checkpoint or the weights, if it made one; None for none."""
        content: object = self.checkpoint
        weights = Path(self.weights or "")
        if content is None and weights.is_file() and weights.suffix != ".safetensors":
            content = read_torch_file(weights)
        if not isinstance(content, Mapping) or "split" not in content:
            return None
        return replace(SplitRecord.from_dict(content["split"]), is_binding=self.checkpoint is not None)

    def classes(self, *, keeps_classifier: bool) -> Sequence[str] | None:
        """Return the class folders in the order of the model's logits; None where the data decides.

        Args:
            keeps_classifier: the weights are used as they are, not as a start for other classes.
        """
        if self.metadata is None or not (keeps_classifier or self.checkpoint is not None):
            return None
        return self.metadata.class_folders() or None


def find_origin(recipe: Recipe) -> Origin:
    """Read the checkpoint to resume, or find the weights to start from.

    Raises:
        UserError: contradicting flags.
        UserError: a file that can't be used, or no published weights for the model.
    """
    model, resume = recipe.model, resume_path(recipe.run)
    if resume is not None:
        checkpoint = read_checkpoint(resume)
        if (arch := checkpoint.get("arch", model.arch)) != model.arch:
            raise UserError(f"--resume {resume} is a checkpoint of {arch}, not of --arch {model.arch}")
        metadata = checkpoint.get("metadata")
        return Origin(
            resume=resume,
            checkpoint=checkpoint,
            metadata=WeightsMetadata.from_dict(metadata) if metadata else None,
        )
    if model.pretrained and model.pretrained_from_file:
        raise UserError("--pretrained-from-file and --pretrained contradict each other; give one")
    if not model.pretrained and not model.pretrained_from_file:
        return Origin()
    file = model.pretrained_from_file
    weights = str(local_source(file)) if file else published_tag(model.arch, model.pretrained_source)
    return Origin(weights, metadata=read_metadata(weights))
