"""The optimizer over flat memory: each group of parameters is one tensor, so an update is a handful of operations.

PyTorch's optimizers loop over parameters in Python, hundreds of small tensors for an EfficientNet. Here the
parameters become views of one flat tensor per group, PyTorch's own RMSprop or SGD updates that tensor, and a step
whose gradients are not finite is left out without asking the device.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from effnet.errors import UserError
from effnet.recipe import OptimizerSettings

_STATES = {"rmsprop": ("square_avg", "momentum_buffer"), "sgd": ("momentum_buffer",)}


@dataclass
class FlatGroup:
    """Parameters with common settings, stored one after the other in `flat`; `views` are its parts in their shapes."""

    names: list[str]
    parameters: list[nn.Parameter]
    flat: nn.Parameter
    weight_decay: float
    lr_factor: float

    def __post_init__(self) -> None:
        self.flat.grad = torch.zeros_like(self.flat)
        self.gradient_views = self.views(self.flat.grad)

    def views(self, flat: Tensor) -> list[Tensor]:
        """Parts of a tensor laid out as `flat`, with the shapes and strides of the parameters."""
        parts = flat.detach().split([parameter.numel() for parameter in self.parameters])
        return [
            part.as_strided(parameter.shape, parameter.stride(), part.storage_offset())
            for part, parameter in zip(parts, self.parameters, strict=True)
        ]

    def gather_gradients(self) -> None:
        """Copy the parameters' gradients into the flat one and release them."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        torch._foreach_copy_(self.gradient_views, gradients)
        for parameter in self.parameters:
            parameter.grad = None


class FlatOptimizer:
    """RMSprop or SGD over the trainable parameters of a model.

    The parameters move into flat tensors when this is made, so the model must be on its device, in its memory
    format, and stay there. Weight decay leaves out BatchNorm's parameters unless `bn_weight_decay` is set.

    Args:
        model: model on its device.
        settings: resolved settings (`lr` and `weight_decay` given).
    """

    def __init__(self, model: nn.Module, settings: OptimizerSettings) -> None:
        if settings.optimizer == "rmsprop" and settings.nesterov:
            raise UserError("--nesterov goes with --optimizer sgd")
        self.groups = _flatten(model, settings)
        self._state_names = (
            _STATES[settings.optimizer] if settings.momentum else _STATES[settings.optimizer][:-1]
        )
        self._optimizer = _build(self.groups, settings)
        self._allocate_state()

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, which each group scales by its factor."""
        for group, options in zip(self.groups, self._optimizer.param_groups, strict=True):
            options["lr"] = lr * group.lr_factor

    def step(self, scaler: torch.amp.GradScaler) -> None:
        """Update the parameters from their gradients, unless one is not finite; then change nothing.

        Gradients are unscaled by `scaler`'s scale and released. Does not wait for the device.
        """
        for group in self.groups:
            group.gather_gradients()
        if scaler.is_enabled():
            scaler.unscale_(self._optimizer)
        flats = [group.flat.grad for group in self.groups if group.flat.grad is not None]
        # A sum is finite only if every part is; one that overflows though its parts are finite is as useless.
        finite = torch.stack([flat.sum() for flat in flats]).isfinite().all()
        if flats[0].device.type == "cpu":
            if finite:
                self._optimizer.step()
            return
        kept = [tensor.clone() for tensor in self._tensors()]
        self._optimizer.step()
        for new, old in zip(self._tensors(), kept, strict=True):
            torch.where(finite, new, old, out=new)

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Optimizer state by the model's parameter names: {name: {"square_avg": ..., "momentum_buffer": ...}}."""
        state: dict[str, dict[str, Tensor]] = {}
        for group in self.groups:
            for kind in self._state_names:
                views = group.views(self._optimizer.state[group.flat][kind])
                for name, view in zip(group.names, views, strict=True):
                    state.setdefault(name, {})[kind] = view
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Copy a state that `state_dict` gave.

        Raises:
            UserError: the state belongs to another model or optimizer.
        """
        ours = self.state_dict()
        if ours.keys() != state.keys() or any(ours[name].keys() != state[name].keys() for name in ours):
            raise UserError(
                "the checkpoint's optimizer state is of another model or optimizer; see --pretrained-from-file"
            )
        for name, kinds in ours.items():
            for kind, view in kinds.items():
                view.copy_(state[name][kind])

    def _tensors(self) -> list[Tensor]:
        states = self._optimizer.state
        return [
            tensor
            for group in self.groups
            for tensor in (group.flat.detach(), *(states[group.flat][kind] for kind in self._state_names))
        ]

    def _allocate_state(self) -> None:
        # PyTorch makes the state in the first step; one that is left out needs it before.
        for group in self.groups:
            state: dict[str, Any] = {kind: torch.zeros_like(group.flat) for kind in self._state_names}
            if "square_avg" in state:
                state["step"] = torch.zeros((), dtype=torch.float32)
            self._optimizer.state[group.flat] = state


def _build(groups: list[FlatGroup], settings: OptimizerSettings) -> torch.optim.Optimizer:
    options = [{"params": [group.flat], "weight_decay": group.weight_decay} for group in groups]
    lr = settings.lr or 0.0
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            options, lr=lr, momentum=settings.momentum, nesterov=settings.nesterov, foreach=True
        )
    return torch.optim.RMSprop(
        options,
        lr=lr,
        alpha=settings.rmsprop_alpha,
        eps=settings.rmsprop_eps,
        momentum=settings.momentum,
        foreach=True,
    )


def _flatten(model: nn.Module, settings: OptimizerSettings) -> list[FlatGroup]:
    members: dict[tuple[float, float], dict[str, nn.Parameter]] = {}
    undecayed = set() if settings.bn_weight_decay else set(_batch_norm_parameters(model))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if parameter in undecayed else settings.weight_decay or 0.0
            factor = 1.0 if name.startswith("classifier.") else settings.backbone_lr_factor
            members.setdefault((decay, factor), {})[name] = parameter
    return [_flat_group(named, decay, factor) for (decay, factor), named in members.items()]


def _flat_group(named: dict[str, nn.Parameter], weight_decay: float, lr_factor: float) -> FlatGroup:
    parameters = list(named.values())
    # In memory order, so that a channels-last kernel stays channels-last.
    flat = nn.Parameter(torch.cat([_memory(parameter) for parameter in parameters]))
    group = FlatGroup(list(named), parameters, flat, weight_decay, lr_factor)
    for parameter, view in zip(parameters, group.views(flat), strict=True):
        parameter.data = view
    return group


def _memory(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().as_strided((parameter.numel(),), (1,))


def _batch_norm_parameters(model: nn.Module) -> Iterable[nn.Parameter]:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield from module.parameters(recurse=False)
