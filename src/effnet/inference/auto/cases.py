"""Candidates of ``--engine auto`` for a model, and all that the choice among them depends on."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from effnet.export.trained import TrainedModel
from effnet.inference.auto.choose import Case, Work
from effnet.inference.engines import ENGINES, Candidate, EngineKind, for_weights, reading
from effnet.inference.engines.network import Network
from effnet.runtime.errors import UserError
from effnet.runtime.files import sha256_of
from effnet.runtime.machine import cores, version_of
from effnet.runtime.processor import cpu_model

_PACKAGES = ("effnet", "torch", "onnxruntime", "openvino", "tensorrt", "ai-edge-litert")
# On a CPU the time of an image hardly depends on the batch above it.
_MOST_ON_CPU = 16
_DIGITS = 12


def case_of_weights(
    trained: TrainedModel, device: torch.device, precision: str, folder: Path, work: Work
) -> Case:
    """Return the case of a model in memory.

    Args:
        trained: the model.
        device: device to run on.
        precision: as in `ComputeSettings`.
        folder: for files that engines read; one is shared by all that read it.
        work: what the engine is for.
    """
    metadata = trained.metadata
    size = metadata.preprocessing["image_size"]
    kinds = [kind for kind in for_weights(device) if not kind.precisions or precision in kind.precisions]
    named = f"{metadata.model} {_structure(trained.model)}, {size} px"
    return _case(
        named,
        [kind for kind in kinds if _is_worth_it(kind, kinds, device, work)],
        device,
        precision,
        work,
        lambda candidate: open_weights(candidate, trained, device, precision, folder),
    )


def open_weights(
    candidate: Candidate, trained: TrainedModel, device: torch.device, precision: str, folder: Path
) -> Network:
    """Open a model in memory on an engine; see `EngineKind.from_weights`.

    Raises:
        UserError: the engine is not installed, runs only files, or does not offer the device or precision.
    """
    kind = ENGINES[candidate.engine]
    if kind.from_weights is None:
        raise UserError(
            f"--engine {kind.name} runs {' and '.join(kind.suffixes)} files, not weights; `effnet export {kind.name}` "
            "writes one"
        )
    return kind.from_weights(trained, device, precision, folder, **dict(candidate.settings))


def case_of_file(path: Path, device: torch.device, precision: str, work: Work) -> Case:
    """Return the case of a file that `effnet export` wrote.

    Raises:
        UserError: no engine that is installed reads it.
    """
    digest = sha256_of(path)[:_DIGITS] if path.is_file() else "missing"
    return _case(
        f"{path.name} {digest}",
        reading(path, device),
        device,
        precision,
        work,
        lambda candidate: ENGINES[candidate.engine].network(  # type: ignore[misc]
            path, device, precision=precision, **dict(candidate.settings)
        ),
    )


def _case(
    model: str,
    kinds: Iterable[EngineKind],
    device: torch.device,
    precision: str,
    work: Work,
    opener: Callable[[Candidate], Network],
) -> Case:
    images = min(work.batch, _MOST_ON_CPU) if device.type == "cpu" else work.batch
    candidates = [
        Candidate(kind.name, tuple(settings.items()))
        for kind in kinds
        for settings in kind.settings(cores() or 1, images)
    ]
    candidates.sort(key=lambda candidate: bool(candidate.settings))
    names = ", ".join(sorted(map(str, candidates)))
    key = f"{model}, batch {images}, {precision}; {_machine(device)}; {_versions()}; {names}"
    return Case(key, candidates, opener, images)


def _is_worth_it(kind: EngineKind, kinds: Iterable[EngineKind], device: torch.device, work: Work) -> bool:
    """Return True unless an engine's preparation takes longer than it saves.

    On a CPU, that of a compiler does wherever an engine is installed that needs none.
    """
    if not kind.least_images:
        return True
    if device.type == "cpu":
        others = [other for other in kinds if not other.least_images and other.name != "torch"]
        return not others and work.images is not None and work.images >= kind.least_images
    return work.images is None or work.images >= kind.least_images


def _structure(model: nn.Module) -> str:
    """Return a hash of the model's layers and shapes, on which its speed depends, and not on its values."""
    layers = [f"{name} {type(module).__name__}" for name, module in model.named_modules()]
    shapes = [f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items()]
    return hashlib.sha256("\n".join([*layers, *shapes]).encode()).hexdigest()[:_DIGITS]


def _machine(device: torch.device) -> str:
    card = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{cpu_model()}, {cores()} cores, {torch.get_num_threads()} threads{card}"


def _versions() -> str:
    found = {name: version_of(name) for name in _PACKAGES}
    return ", ".join(f"{name} {version}" for name, version in found.items() if version)
