"""A validation of a run's best weights, for the part of a report that shows answers."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from effnet.data import Batch
from effnet.inference.by_class import class_metrics
from effnet.inference.evaluate import Opening, open_evaluation
from effnet.inference.heat_maps import heat_maps, layers_of
from effnet.inference.overlay import coloured
from effnet.inference.reliability import Reliability
from effnet.models.efficientnet import EfficientNet
from effnet.recipe import Recipe
from effnet.report.findings import Answer, Findings, Mistake
from effnet.report.runs import Run
from effnet.runtime.errors import UserError
from effnet.runtime.processes import Processes, joined_processes
from effnet.training.confusion import ConfusionMatrix
from effnet.training.resume import inherited_settings
from effnet.training.run_weights import averaged_is_better, best_checkpoint
from effnet.training.validate import Validator, together

_SHOWN = 5  # classes for each mistake
_AT_ONCE = 16  # images whose heat maps are computed together


@dataclass(frozen=True)
class _Kept:
    """A mistake before its names are looked up."""

    confidence: float
    index: int | None
    target: int
    chosen: list[int]
    probabilities: list[float]
    pixels: Tensor


class Mistakes:
    """Collects the most confident mistakes of a validation; an observer of `Validator`.

    Args:
        most: mistakes to keep.
        temperature: divisor of the logits.
    """

    def __init__(self, most: int, temperature: float = 1.0) -> None:
        self._most, self._temperature = most, temperature
        self._kept: list[_Kept] = []

    def __call__(self, batch: Batch, logits: Tensor) -> None:
        """Look at a batch."""
        probabilities = (logits / self._temperature).softmax(1)
        sure, chosen = probabilities.max(1)
        wrong = (chosen != batch.targets) & sure.isfinite()
        for place in sure.where(wrong, -1.0).topk(min(self._most, len(sure))).indices.tolist():
            if wrong[place]:
                self._kept.append(_kept(batch, probabilities, place))
        self._kept.sort(key=lambda kept: -kept.confidence)
        del self._kept[self._most :]

    def found(self, opening: Opening) -> list[Mistake]:
        """Return the mistakes with the names of their files and classes."""
        classes, name_of = opening.data.classes, opening.data.names.get("val")
        return [
            Mistake(
                "" if kept.index is None or name_of is None else name_of(kept.index),
                classes[kept.target],
                tuple(
                    Answer(classes[each], value)
                    for each, value in zip(kept.chosen, kept.probabilities, strict=True)
                ),
                kept.pixels.numpy(),
            )
            for kept in self._kept
        ]


def _kept(batch: Batch, probabilities: Tensor, place: int) -> _Kept:
    best = probabilities[place].topk(min(_SHOWN, probabilities.shape[1]))
    return _Kept(
        float(best.values[0]),
        None if batch.indices is None else int(batch.indices[place]),
        int(batch.targets[place]),
        best.indices.tolist(),
        best.values.tolist(),
        batch.images[place].permute(1, 2, 0).cpu().contiguous().clone(),
    )


def validated(run: Run, data: Path, *, device: str = "auto", mistakes: int = 24) -> Findings:
    """Validate the best weights of a run.

    Args:
        run: its folder holds the checkpoint.
        data: data source, as for `effnet evaluate`.
        device: ``auto``, ``cuda`` or ``cpu``.
        mistakes: most mistakes to keep.

    Raises:
        UserError: no checkpoint, or data that can't be used.
    """
    weights = best_checkpoint(run.folder)
    recipe = Recipe().replace(
        {
            **inherited_settings(weights),
            "device": device,
            "evaluate": True,
            "resume": str(weights),
            "workspace": str(run.folder),
        }
    )
    with joined_processes(device) as processes:
        if processes.world_size > 1:
            raise UserError("effnet report takes one process; start it without a launcher")
        opening = open_evaluation(recipe, data, processes)
        prefix = "val_ema" if averaged_is_better(weights) and "val_ema" in opening.models else "val"
        source = f"{weights.name} (averaged weights)" if prefix == "val_ema" else weights.name
        found = Findings(source, opening.data.classes)
        model, validator = opening.models[prefix]
        if opening.recipe.task.task == "multi":
            found = replace(found, metrics=validator(model))
        else:
            known = opening.confidence.get(prefix)
            temperature = 1.0 if known is None else known.temperature
            found = _observed(
                found, opening, model, validator, processes, Mistakes(mistakes, temperature), temperature
            )
        assert validator.results is not None
        return replace(found, by_class=class_metrics(validator.results, found.classes))


def _observed(
    found: Findings,
    opening: Opening,
    model: nn.Module,
    validator: Validator,
    processes: Processes,
    mistakes: Mistakes,
    temperature: float,
) -> Findings:
    """Return findings with those of images that have one label each."""
    matrix = ConfusionMatrix(found.classes, processes.device)
    reliability = Reliability(processes, temperature)
    metrics = validator(model, together([matrix, reliability, mistakes]))
    counts = matrix.counts
    return replace(
        found,
        metrics=metrics,
        cells=[(true, chosen, int(counts[true, chosen])) for true, chosen in counts.nonzero().tolist()],
        mistakes=_explained(mistakes.found(opening), model, validator),
        reliability={value: reliability.rows(value) for value in reliability.bins},
    )


def _explained(mistakes: list[Mistake], model: nn.Module, validator: Validator) -> list[Mistake]:
    """Return mistakes with heat maps of their wrong answers, from the last layer that tells places apart."""
    if not isinstance(model, EfficientNet):  # averaged over views
        return mistakes
    explained: list[Mistake] = []
    for first in range(0, len(mistakes), _AT_ONCE):
        part = mistakes[first : first + _AT_ONCE]
        pixels = torch.from_numpy(np.stack([mistake.pixels for mistake in part])).permute(0, 3, 1, 2)
        maps = _maps(model, validator.prepare(pixels.to(validator.processes.device)))
        if maps is None:
            return mistakes
        for mistake, heat in zip(part, maps.cpu().numpy(), strict=True):
            picture = coloured(mistake.pixels, heat).round().astype(np.uint8)
            explained.append(replace(mistake, heat_map=picture))
    return explained


def _maps(model: EfficientNet, images: Tensor) -> Tensor | None:
    """Return heat maps (N, H, W) of the most probable classes; None for images too small for any layer."""
    was_training = model.training
    model.eval()
    try:
        for layer in reversed(layers_of(model)):
            try:
                return heat_maps(model, images, layer=layer).maps
            except UserError:  # a single pixel, which has no places
                continue
        return None
    finally:
        model.train(was_training)
