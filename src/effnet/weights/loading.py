"""Loading of weights into models: find the file, detect its layout, check that it fits, load it."""

import functools
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effnet.models.config import MODEL_CONFIGS, ModelConfig
from effnet.models.efficientnet import EfficientNet
from effnet.models.registry import model_config
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.suggestions import suggested, suggested_path
from effnet.weights.files import WeightsFile, read_weights, strip_wrappers
from effnet.weights.hub import is_hub_name
from effnet.weights.layouts import Layout, StateDict, detect_layout
from effnet.weights.metadata import WeightsMetadata
from effnet.weights.published import (
    PUBLISHERS,
    find_weights,
    is_tag,
    list_weights,
    metadata_by_convention,
    metadata_of_file,
    metadata_of_tag,
)
from effnet.weights.sources import locate
from effnet.weights.tensors import check_finite, check_tensors

_LOG = logging.getLogger("effnet")
_HEAD = ("classifier.fc.weight", "classifier.fc.bias")
_SHOWN = 3  # keys named in an error
_QUANTIZER_ENTRIES = ("_amax", "_bias_value")

Source = str | os.PathLike[str]


@dataclass(frozen=True)
class LoadReport:
    """Result of loading a weight file.

    Attributes:
        path: the file.
        layout: name of its layout, a key of `LAYOUTS`.
        metadata: what is known about the weights; without classes if the classifier was not loaded; or None.
        entries: how many entries of the state dict were loaded.
        dropped_head: (classes in the file, classes of the model) if the classifier was left out, else None.
        quantizer_entries: how many entries of quantizers were left out because the model has no such quantizer.
    """

    path: Path
    layout: str
    metadata: WeightsMetadata | None
    entries: int
    dropped_head: tuple[int, int] | None = None
    quantizer_entries: int = 0


Build = Callable[[ModelConfig], EfficientNet]
"""builds the model of a configuration; `effnet.quantization.model.build` builds quantized ones too"""


def create_model(
    name: str,
    *,
    weights: Source | None = None,
    num_classes: int = 1000,
    build: Build = EfficientNet,
    **overrides: Any,
) -> EfficientNet:
    """Create a model by its name, with published weights, weights in a file, or freshly initialised.

    Args:
        name: a name of `list_models`, such as ``efficientnet-b0``.
        weights: None; a publisher (``ngc``, ``torchvision``, ``timm``, ``google``) or one of its sets
            (``timm/tf_efficientnet_b0.ap_in1k``); a path (.pth, .pth.tar, .safetensors); or a repository on the hub,
            ``hf-hub:owner/name``.
        num_classes: number of logits. A classifier for another number is left out, with a warning.
        build: makes the model of a configuration.
        overrides: fields of `ModelConfig`. BatchNorm's epsilon and padding follow the weights unless given.

    Returns:
        The model in training mode on the CPU. Its `metadata` is what is known about the weights, or None.

    Raises:
        UserError: unknown name or override; weights that can't be found, downloaded or read, or don't fit.

    Example:
        >>> model = create_model("efficientnet-b0", num_classes=10)
        >>> model.classifier.fc.out_features
        10
    """
    config = model_config(name, num_classes=num_classes, **overrides)
    if weights is None:
        return build(config)
    file, layout, metadata = _open(weights, config, ema=False)
    return _build(build, config, overrides, file, layout, metadata)


def load_model(
    source: Source,
    *,
    name: str | None = None,
    ema: bool = False,
    build: Build = EfficientNet,
    **overrides: Any,
) -> EfficientNet:
    """Create the model that weights are of, with their number of classes.

    Args:
        source: a publisher's set, ``publisher/name``, a path or a repository on the hub, as for `create_model`.
        name: the model; None for what the weights say or look like.
        ema: take the averaged weights of a training checkpoint.
        build: makes the model of a configuration.
        overrides: as for `create_model`.

    Returns:
        The model in training mode on the CPU, with `metadata`.

    Raises:
        UserError: weights that can't be found, downloaded or read, or are of none of the models.
    """
    if _is_published(source):
        found = metadata_of_tag(str(source))
        return create_model(name or found.model, weights=source, build=build, **overrides)
    file = read_weights(source, ema=ema)
    layout = _layout(file)
    metadata = file.metadata or _guess_metadata(file, layout)
    arch = name or (metadata.model if metadata else _recognised(file, layout))
    num_classes = _num_classes(file, layout, model_config(arch))
    config = model_config(arch, num_classes=num_classes, **overrides)
    return _build(build, config, overrides, file, layout, metadata)


def _num_classes(file: WeightsFile, layout: Layout, config: ModelConfig) -> int | None:
    """Return the number of classes of a file's classifier; None if it has none of the model's size."""
    translated = layout.to_ours(file.state_dict, config)
    weight, bias = (translated.get(key) for key in _HEAD)
    if weight is None or bias is None or bias.ndim != 1:
        return None
    return len(bias) if weight.numel() == len(bias) * config.head_channels else None


def _recognised(file: WeightsFile, layout: Layout) -> str:
    for config in MODEL_CONFIGS.values():
        if _fits(layout, file.state_dict, config):
            return config.name
    raise UserError(f"{file.path}: weights of none of the models that `effnet models` lists")


def _build(
    build: Build,
    config: ModelConfig,
    overrides: Mapping[str, Any],
    file: WeightsFile,
    layout: Layout,
    metadata: WeightsMetadata | None,
) -> EfficientNet:
    """Build the model of `config` with a file's weights, and with their BatchNorm epsilon and padding."""
    if metadata is not None:
        built_as: dict[str, Any] = {"bn_epsilon": metadata.bn_epsilon, "padding": metadata.padding}
        config = replace(config, **{key: v for key, v in built_as.items() if overrides.get(key) is None})
    model = build(config)
    model.metadata = _load(model, file, layout, metadata).metadata
    return model


def load_weights(model: nn.Module, source: Source, *, ema: bool = False) -> LoadReport:
    """Load published weights, or those in a file, into a model of this package, in place.

    A classifier for another number of classes is left out, with a warning. `model.metadata` is set.
    BatchNorm's epsilon and the padding stay the model's, with a warning if the weights were made with others:
    `create_model` builds the model to fit.

    Args:
        model: a model of `create_model`, on any device.
        source: a publisher, a publisher's set, a path or a repository on the hub, as for `create_model`.
        ema: take the averaged weights of a training checkpoint.

    Raises:
        UserError: weights that can't be found, downloaded or read, or that don't fit.
    """
    if not isinstance(model, EfficientNet):
        raise UserError(f"load_weights needs a model of create_model, not {type(model).__name__}")
    file, layout, metadata = _open(source, model.config, ema=ema)
    report = _load(model, file, layout, metadata)
    if metadata is not None:
        for field in ("bn_epsilon", "padding"):
            theirs, ours = getattr(metadata, field), getattr(model.config, field)
            if theirs != ours:
                _LOG.warning("%s: made with %s %s, the model has %s", file.path, field, theirs, ours)
    model.metadata = report.metadata
    return report


def read_metadata(source: Source) -> WeightsMetadata | None:
    """Return the metadata of weights without building a model: published, stored in the file, or guessed.

    Args:
        source: a publisher's set, ``publisher/name``, a path, or a repository on the hub.

    Returns:
        The metadata, or None for a file without metadata and in the layout of no publisher.

    Raises:
        UserError: no such set, or a file that can't be read.
    """
    if _is_published(source):
        return metadata_of_tag(str(source))
    file = read_weights(source)
    return file.metadata or _guess_metadata(file, _layout(file))


def _open(
    source: Source, config: ModelConfig, *, ema: bool
) -> tuple[WeightsFile, Layout, WeightsMetadata | None]:
    if _is_published(source):
        published = find_weights(config.name, str(source))
        file = read_weights(locate(published))
        return file, _layout(file), published.metadata
    file = read_weights(source, ema=ema)
    layout = _layout(file)
    return file, layout, file.metadata or _guess_metadata(file, layout)


def _is_published(source: Source) -> bool:
    if not isinstance(source, str) or is_hub_name(source) or Path(source).exists():
        return False
    if not is_tag(source) and not Path(source).suffix:
        publishers = ", ".join(PUBLISHERS)
        near = suggested(source, PUBLISHERS) or suggested_path(source)
        raise UserError(f"{source}: no such file, and none of the publishers of weights ({publishers}){near}")
    return is_tag(source)


def _layout(file: WeightsFile) -> Layout:
    try:
        return detect_layout(file.state_dict)
    except UserError as error:
        raise UserError(f"{file.path}: {error}") from None


def fitted_state_dict(model: EfficientNet, state_dict: Mapping[str, Tensor]) -> StateDict:
    """Return a state dict of any known layout under the names and in the shapes and order of a model.

    Args:
        model: the network that it is for.
        state_dict: the tensors, with or without the prefixes of a distributed run.

    Raises:
        UserError: an unknown layout, or tensors that don't fit the model.
    """
    check_tensors(state_dict, "the weights")
    stripped = strip_wrappers(state_dict)
    translated = detect_layout(stripped).to_ours(stripped, model.config)
    target, _ = _settle_quantizers(model, translated, model.state_dict())
    fitted = {key: _in_form_of(tensor, target.get(key)) for key, tensor in translated.items()}
    if faults := _faults(fitted, target):
        raise UserError(f"the weights don't fit {model.config.name}: {_shown(faults)}")
    check_finite(fitted, "the weights")
    return {**fitted, **{key: tensor for key, tensor in target.items() if key not in fitted}}


def _guess_metadata(file: WeightsFile, layout: Layout) -> WeightsMetadata | None:
    """Return the metadata of a published file, or else what its layout's publisher uses for such weights.

    The latter is a guess, which is logged as a warning.
    """
    if metadata := metadata_of_file(file.path):
        return metadata
    if guess := _guess_by_layout(file, layout):
        _LOG.warning(
            "%s: has no metadata; its preprocessing is assumed to be that of %s, with bn_epsilon %g and %s padding",
            *(file.path, _named(guess), guess.bn_epsilon, guess.padding),
        )
        return guess
    _LOG.warning(
        "%s: has no metadata; the model's image size and the mean and std of ImageNet are assumed",
        file.path,
    )
    return None


def _guess_by_layout(file: WeightsFile, layout: Layout) -> WeightsMetadata | None:
    for guess in list_weights():
        config = MODEL_CONFIGS.get(guess.model)
        if guess.publisher == layout.name and config and _fits(layout, file.state_dict, config):
            return guess
    for config in MODEL_CONFIGS.values():
        guess_of_family = metadata_by_convention(layout.name, config.name)
        if guess_of_family and _fits(layout, file.state_dict, config):
            return guess_of_family
    return None


def _named(guess: WeightsMetadata) -> str:
    """Return the tag of the published weights that a guess is from, or else publisher and model."""
    return guess.tag if guess.name else f"{guess.publisher}'s {guess.model}"


def _load(
    model: EfficientNet, file: WeightsFile, layout: Layout, metadata: WeightsMetadata | None
) -> LoadReport:
    target: Mapping[str, Tensor] = model.state_dict()
    state_dict = layout.to_ours(file.state_dict, model.config)
    target, quantizer_entries = _settle_quantizers(model, state_dict, target)
    state_dict = {key: _in_form_of(tensor, target.get(key)) for key, tensor in state_dict.items()}
    dropped_head = _drop_head(state_dict, target)
    without_head = (
        dict(target) if dropped_head is None else {k: v for k, v in target.items() if k not in _HEAD}
    )
    if faults := _faults(state_dict, without_head):
        raise _misfit(file, layout, model.config, faults)
    check_finite(state_dict, str(file.path))
    _check_classes(file, layout, model.config)
    model.load_state_dict(state_dict, strict=False)

    counts = f"{len(state_dict)} entries"
    if quantizer_entries:
        counts += f", {len(quantizer_entries)} of quantizers left out"
    _LOG.info("%s: %s layout, loaded into %s, %s", file.path, layout.name, model.config.name, counts)
    if dropped_head:
        _LOG.warning("%s: its classifier has %d classes, the model %d; left out", file.path, *dropped_head)
    if metadata is not None and (dropped_head or len(metadata.class_names()) != model.config.num_classes):
        metadata = metadata.without_classes()
    return LoadReport(file.path, layout.name, metadata, len(state_dict), dropped_head, len(quantizer_entries))


def _check_classes(file: WeightsFile, layout: Layout, config: ModelConfig) -> None:
    """Refuse a file whose metadata name another number of classes than its classifier has."""
    names = file.metadata.class_names() if file.metadata else ()
    found = _num_classes(file, layout, config)
    if names and found not in (None, len(names)):
        raise UserError(f"{file.path}: its metadata name {len(names)} classes, its classifier has {found}")


def _settle_quantizers(
    model: EfficientNet, state_dict: StateDict, target: Mapping[str, Tensor]
) -> tuple[Mapping[str, Tensor], list[str]]:
    """Return the entries that a file must have, and its quantizer entries that the model has no quantizer for.

    The latter are removed from `state_dict`. The entries in the file of a quantized model decide which quantizers are
    on, so the model's present quantizer entries are not required of it.
    """
    modules = dict(model.named_modules()) if model.config.quantized else {}
    found = [key for key in state_dict if key.endswith(_QUANTIZER_ENTRIES) and key not in target]
    left_out = [key for key in found if key.rpartition(".")[0] not in modules]
    for key in left_out:
        del state_dict[key]
    if model.config.quantized:
        target = {key: tensor for key, tensor in target.items() if not key.endswith(_QUANTIZER_ENTRIES)}
        target |= {key: tensor for key, tensor in state_dict.items() if key.endswith(_QUANTIZER_ENTRIES)}
    return target, left_out


def _in_form_of(tensor: Tensor, target: Tensor | None) -> Tensor:
    """Reshape a squeeze-and-excitation weight to a matrix or a 1x1 kernel, as the model has it."""
    if target is None or {tensor.ndim, target.ndim} != {2, 4} or tensor.numel() != target.numel():
        return tensor
    is_kernel_1x1 = (tensor if tensor.ndim == 4 else target).shape[2:] == (1, 1)
    return tensor.reshape(target.shape) if is_kernel_1x1 else tensor


def _drop_head(state_dict: StateDict, target: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Remove a classifier for another number of classes; return both numbers (theirs, ours), or None."""
    weight, bias = (state_dict.get(key) for key in _HEAD)
    wanted = target[_HEAD[0]]
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
        return None
    if weight.shape[1] != wanted.shape[1] or weight.shape[0] == wanted.shape[0]:
        return None
    for key in _HEAD:
        del state_dict[key]
    return weight.shape[0], wanted.shape[0]


def _misfit(file: WeightsFile, layout: Layout, config: ModelConfig, faults: list[str]) -> UserError:
    for other in MODEL_CONFIGS.values():
        if not _same_entries(other, MODEL_CONFIGS[config.name]) and _fits(layout, file.state_dict, other):
            return UserError(
                f"{file.path}: weights of {other.name}, not of {config.name}; ask for that model"
            )
    return UserError(f"{file.path}: does not fit {config.name}: {_shown(faults)}")


def _same_entries(one: ModelConfig, other: ModelConfig) -> bool:
    """Return True for models whose state dicts have the same entries: those that differ in the activation alone."""
    return replace(one, name=other.name, twin=other.twin, activation=other.activation) == other


def _shown(faults: list[str]) -> str:
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return one_line("; ".join(faults[:_SHOWN])) + more


def _faults(state_dict: StateDict, target: Mapping[str, Tensor]) -> list[str]:
    # Older files have no `num_batches_tracked`, and no output depends on it.
    missing = [key for key in target if key not in state_dict and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state_dict if key not in target]
    mismatched = [
        f"{key} is {_shape(tensor)}, not {_shape(target[key])}"
        for key, tensor in state_dict.items()
        if key in target and tensor.shape != target[key].shape
    ]
    integers = [
        f"{key} is of {str(tensor.dtype).removeprefix('torch.')}"
        for key, tensor in state_dict.items()
        if key in target and target[key].is_floating_point() and not tensor.is_floating_point()
    ]
    return [
        *(f"{key} is missing" for key in missing),
        *(f"{key} is unexpected" for key in unexpected),
        *mismatched,
        *integers,
    ]


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _fits(layout: Layout, original: StateDict, config: ModelConfig) -> bool:
    """Return True for weights of the model of `config`, with any number of classes."""
    translated = layout.to_ours(original, config)
    if config.quantized != any(key.endswith("_amax") for key in translated):
        return False
    # Compare a few shapes first, because building the model for all of them is slow.
    depth = sum(stage.depth for stage in config.stages())
    projections = sum(key.endswith(".proj.conv.weight") for key in translated)
    head = translated.get("features.conv.weight")
    if projections != depth or head is None or head.shape[:1] != (config.head_channels,):
        return False
    target = {key: tensor for key, tensor in _shapes(config).items() if key not in _HEAD}
    state_dict = {
        key: _in_form_of(tensor, target.get(key))
        for key, tensor in translated.items()
        if key not in _HEAD and not key.endswith(_QUANTIZER_ENTRIES)
    }
    return not _faults(state_dict, target)


@functools.cache
def _shapes(config: ModelConfig) -> Mapping[str, Tensor]:
    # The quantized model has the same shapes, except for 1x1 kernels in place of matrices.
    with torch.device("meta"):
        return EfficientNet(replace(config, quantized=False)).state_dict()
