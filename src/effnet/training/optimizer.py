"""The optimizer over flat memory: each group of parameters is one tensor, so an update is a handful of operations.

PyTorch's optimizers loop over parameters in Python, hundreds of small tensors for an EfficientNet. Here the
parameters become views of one flat tensor per group, one of PyTorch's own optimizers (`effnet.training.optimizers`)
updates that tensor, and a step whose gradients are not finite is left out without waiting for the device.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from effnet.recipe import ResolvedOptimizer
from effnet.runtime.errors import UserError
from effnet.training.optimizers import OptimizerKind, optimizer_kind

# On a CPU an update goes over a megabyte at a time, whose operands stay in the cache from one operation to the next.
_CPU_CHUNK = 1 << 18


class FlatGroup:
    """Parameters with common settings, stored one after the other in `flat`.

    Args:
        named: parameters by name; they become views of `flat`.
        weight_decay: of the group.
        lr_factor: times the learning rate.
        state_names: the optimizer's tensors of a parameter's shape; `state` holds them, laid out as `flat`.
    """

    def __init__(
        self,
        named: dict[str, nn.Parameter],
        weight_decay: float,
        lr_factor: float,
        state_names: tuple[str, ...],
    ) -> None:
        self.names, self.parameters = list(named), list(named.values())
        self.weight_decay, self.lr_factor = weight_decay, lr_factor
        # In memory order, so that a channels-last kernel stays channels-last.
        self.flat = torch.cat([_memory(parameter) for parameter in self.parameters])
        self.gradient = torch.zeros_like(self.flat)
        self.state = {name: torch.zeros_like(self.flat) for name in state_names}
        self._gradient_views = self.views(self.gradient)
        for parameter, view in zip(self.parameters, self.views(self.flat), strict=True):
            parameter.data = view

    def views(self, flat: Tensor) -> list[Tensor]:
        """Return the parts of a tensor laid out as `flat`, with the shapes and strides of the parameters."""
        parts = flat.split([parameter.numel() for parameter in self.parameters])
        return [
            part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
            for part, parameter in zip(parts, self.parameters, strict=True)
        ]

    def chunks(self) -> dict[nn.Parameter, dict[str, Tensor]]:
        """Return the parts of `flat` that PyTorch's optimizer updates, each with its gradient and its `state`."""
        size = _CPU_CHUNK if self.flat.device.type == "cpu" else len(self.flat)
        states = [dict(zip(self.state, parts, strict=True)) for parts in zip(*self._split(size), strict=True)]
        chunks = {}
        for index, (part, gradient) in enumerate(
            zip(self.flat.split(size), self.gradient.split(size), strict=True)
        ):
            chunk = nn.Parameter(part)
            chunk.grad = gradient
            chunks[chunk] = states[index] if states else {}
        return chunks

    def _split(self, size: int) -> list[tuple[Tensor, ...]]:
        return [state.split(size) for state in self.state.values()]

    def gather_gradients(self) -> None:
        """Copy the parameters' gradients into the flat one and release them."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        torch._foreach_copy_(self._gradient_views, gradients)
        for parameter in self.parameters:
            parameter.grad = None


class FlatOptimizer:
    """One of PyTorch's optimizers over the trainable parameters of a model.

    The parameters move into flat tensors when this is made, so the model must be on its device, in its memory
    format, and stay there. Weight decay leaves out BatchNorm's parameters unless `bn_weight_decay` is set.

    Args:
        model: model on its device.
        settings: optimizer, learning rate and weight decay.
        classifier: part of the model whose parameters have the full learning rate; the others have it times
            `settings.backbone_lr_factor`. None applies the factor to all.
    """

    def __init__(
        self, model: nn.Module, settings: ResolvedOptimizer, classifier: nn.Module | None = None
    ) -> None:
        kind = optimizer_kind(settings)
        self.groups = _flatten(model, settings, classifier, kind.state_names(settings))
        self._optimizer = _build(kind, self.groups, settings)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, which each group scales by its factor."""
        for group, options in zip(self.groups, self._optimizer.param_groups, strict=True):
            options["lr"] = lr * group.lr_factor

    def step(self, scaler: torch.amp.GradScaler) -> Tensor:
        """Update the parameters from their gradients, unless one is not finite; then change nothing.

        Gradients are unscaled by `scaler`'s scale and released. Does not wait for the device.

        Returns:
            True if the step was taken, a bool scalar on the device.
        """
        for group in self.groups:
            group.gather_gradients()
        if scaler.is_enabled():
            scaler.unscale_(self._optimizer)
        # A sum is finite only if every element is; if the sum itself overflows, the step is useless as well.
        finite = torch.stack([group.gradient.sum() for group in self.groups]).isfinite().all()
        if finite.device.type == "cpu":
            if finite:
                self._optimizer.step()
            return finite
        kept = [tensor.clone() for tensor in self._tensors()]
        self._optimizer.step()
        for new, old in zip(self._tensors(), kept, strict=True):
            torch.where(finite, new, old, out=new)
        return finite

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return the state by the model's parameter names: {name: {"square_avg": ..., "momentum_buffer": ...}}."""
        state: dict[str, dict[str, Tensor]] = {}
        for group in self.groups:
            for kind, flat in group.state.items():
                for name, view in zip(group.names, group.views(flat), strict=True):
                    state.setdefault(name, {})[kind] = view
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Copy a state that `state_dict` returned.

        Raises:
            UserError: the state belongs to another model or optimizer.
        """
        ours = self.state_dict()
        if _shapes(ours) != _shapes(state):
            raise UserError(
                "the checkpoint's optimizer state is of another model or optimizer; see --pretrained-from-file"
            )
        for name, kinds in ours.items():
            for kind, view in kinds.items():
                view.copy_(state[name][kind])

    def _tensors(self) -> list[Tensor]:
        return [tensor for group in self.groups for tensor in (group.flat, *group.state.values())]


def _shapes(state: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, torch.Size]]:
    return {name: {kind: tensor.shape for kind, tensor in kinds.items()} for name, kinds in state.items()}


def _build(
    kind: OptimizerKind, groups: list[FlatGroup], settings: ResolvedOptimizer
) -> torch.optim.Optimizer:
    chunks = [group.chunks() for group in groups]
    options = [
        {"params": list(of_group), "lr": settings.lr, "weight_decay": group.weight_decay}
        for group, of_group in zip(groups, chunks, strict=True)
    ]
    # One call for each operation on a GPU, one chunk after the other on a CPU.
    optimizer = kind.build(options, settings, foreach=groups[0].flat.device.type != "cpu")
    # PyTorch makes the state in the first step; one that is left out needs it before.
    for of_group in chunks:
        for chunk, state in of_group.items():
            optimizer.state[chunk] = {**state, **({"step": torch.zeros(())} if kind.counts_steps else {})}
    return optimizer


def _flatten(
    model: nn.Module,
    settings: ResolvedOptimizer,
    classifier: nn.Module | None,
    state_names: tuple[str, ...],
) -> list[FlatGroup]:
    head = set() if classifier is None else set(classifier.parameters())
    members: dict[tuple[float, float], dict[str, nn.Parameter]] = {}
    undecayed = set() if settings.bn_weight_decay else set(batch_norm_parameters(model))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if parameter in undecayed else settings.weight_decay
            factor = 1.0 if parameter in head else settings.backbone_lr_factor
            members.setdefault((decay, factor), {})[name] = parameter
    return [FlatGroup(named, decay, factor, state_names) for (decay, factor), named in members.items()]


def _memory(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().as_strided((parameter.numel(),), (1,))


def batch_norm_parameters(model: nn.Module) -> Iterable[nn.Parameter]:
    """Yield the parameters of a model's BatchNorms, which weight decay leaves out by default."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield from module.parameters(recurse=False)
