"""The optimizer over flat memory: each group of parameters is one tensor, so an update is a handful of operations.

PyTorch's optimizers loop over parameters in Python, hundreds of small tensors for an EfficientNet. Here the
parameters become views of one flat tensor per group, one of PyTorch's own optimizers (`effnet.training.optimizers`)
updates that tensor, and a step whose gradients are not finite is left out without waiting for a GPU: there the form is
taken that decides as it updates (`OptimizerKind.fused`).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from effnet.recipe import ResolvedOptimizer
from effnet.runtime.errors import UserError
from effnet.training.optimizers import OptimizerKind, optimizer_kind

# On a CPU an update goes over a megabyte at a time, whose operands stay in the cache from one operation to the next.
_CPU_CHUNK = 1 << 18
# As in torch.nn.utils.clip_grad_norm_.
_NORM_EPS = 1e-6


class FlatGroup:
    """Parameters with common settings, stored one after the other in `flat`.

    Args:
        named: parameters by name; they become views of `flat`.
        weight_decay: of the group.
        lr_factor: times the learning rate.
        kind: the optimizer.
        settings: its settings.
        fused: in the fused form.

    Attributes:
        state: the optimizer's tensors of a parameter's shape, laid out as `flat`.
        steps: steps taken, float32, one element for each chunk, all equal.
    """

    def __init__(
        self,
        named: dict[str, nn.Parameter],
        weight_decay: float,
        lr_factor: float,
        kind: OptimizerKind,
        settings: ResolvedOptimizer,
        fused: bool,
    ) -> None:
        self.names, self.parameters = list(named), list(named.values())
        self.weight_decay, self.lr_factor = weight_decay, lr_factor
        # In memory order, so that a channels-last kernel stays channels-last.
        self.flat = torch.cat([_memory(parameter) for parameter in self.parameters])
        self.gradient = torch.zeros_like(self.flat)
        self.kind = kind
        self._chunk_size = len(self.flat) if fused else _CPU_CHUNK
        state_names = kind.state_names(settings)
        steps_device = self.flat.device if kind.depends_on_steps else "cpu"
        self.state = {name: torch.zeros_like(self.flat) for name in state_names}
        # Of each chunk: PyTorch's optimizers count for each of their parameters.
        self.steps = torch.zeros(len(self.flat.split(self._chunk_size)), device=steps_device)
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
        split = {name: state.split(self._chunk_size) for name, state in self.state.items()}
        if self.kind.counts_steps:
            split["step"] = self.steps.unbind()
        chunks = {}
        for index, (part, gradient) in enumerate(
            zip(self.flat.split(self._chunk_size), self.gradient.split(self._chunk_size), strict=True)
        ):
            chunk = nn.Parameter(part)
            chunk.grad = gradient
            chunks[chunk] = {name: parts[index] for name, parts in split.items()}
        return chunks

    @property
    def trains(self) -> bool:
        """True if the parameters require gradients."""
        return self.parameters[0].requires_grad

    def follow(self, chunks: Sequence[nn.Parameter]) -> None:
        """Give the parts of `flat` their gradients if the parameters require them; the others are left alone."""
        for chunk, gradient in zip(chunks, self.gradient.split(self._chunk_size), strict=True):
            chunk.grad = gradient if self.trains else None

    def state_of_parameters(self) -> dict[str, dict[str, Tensor]]:
        """Return the state of each parameter by name, as views."""
        views = {kind: self.views(flat) for kind, flat in self.state.items()}
        if self.kind.depends_on_steps:
            views["step"] = [self.steps[0]] * len(self.names)
        return {
            name: {kind: of_all[index] for kind, of_all in views.items()}
            for index, name in enumerate(self.names)
            if views
        }

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
        parts: parts of the model from the classifier down. The first has the full learning rate, the others have it
            times `settings.backbone_lr_factor` and, for each part that lies above, `settings.layer_decay`. What is in
            none of them counts as below the last.
        held: parts whose parameters require gradients at times only; see `follow`.
        fused: update in the fused form; None for that on a GPU, and on a CPU where it is faster.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: ResolvedOptimizer,
        parts: Sequence[nn.Module] = (),
        held: Sequence[nn.Module] = (),
        *,
        fused: bool | None = None,
    ) -> None:
        kind = optimizer_kind(settings)
        self._max_norm = settings.clip_grad
        if fused is None:
            fused = next(model.parameters()).device.type != "cpu" or kind.fused_on_cpu()
        self._fused = fused
        self.groups = [
            FlatGroup(named, decay, factor, kind, settings, self._fused)
            for named, decay, factor in _members(model, settings, parts, held)
        ]
        self._optimizer = _build(kind, self.groups, settings, self._fused)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate, which each group scales by its factor."""
        for group, options in zip(self.groups, self._optimizer.param_groups, strict=True):
            options["lr"] = lr * group.lr_factor

    def follow(self) -> None:
        """Update from now on the parameters that require gradients now; all of a part of `held` must or must not."""
        for group, options in zip(self.groups, self._optimizer.param_groups, strict=True):
            group.follow(options["params"])

    def step(self, scaler: torch.amp.GradScaler) -> Tensor:
        """Update the parameters from their gradients, unless one is not finite; then change nothing.

        Gradients are unscaled by `scaler`'s scale and released. Does not wait for the device.

        Returns:
            True if the step was taken, a bool scalar on the device.
        """
        groups = [group for group in self.groups if group.trains]
        for group in groups:
            group.gather_gradients()
        if scaler.is_enabled():
            scaler.unscale_(self._optimizer)
        # A sum is finite only if every element is; if the sum itself overflows, the step is useless as well.
        finite = torch.stack([group.gradient.sum() for group in groups]).isfinite().all()
        if self._max_norm is not None:
            _clip([group.gradient for group in groups], self._max_norm)
        if self._fused:
            self._optimizer.found_inf = finite.logical_not().float()  # type: ignore[attr-defined]
            self._optimizer.step()
        elif finite:
            self._optimizer.step()
        return finite

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return the state by the model's parameter names: {name: {"square_avg": ..., "momentum_buffer": ...}}."""
        state: dict[str, dict[str, Tensor]] = {}
        for group in self.groups:
            state |= group.state_of_parameters()
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
        for group in self.groups:
            group.steps.fill_(group.steps[0])


def _clip(gradients: Sequence[Tensor], max_norm: float) -> None:
    """Scale gradients to a norm where theirs is larger, without waiting for the device."""
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in gradients]))
    factor = (max_norm / (norm + _NORM_EPS)).clamp(max=1.0)
    for part in gradients:
        part.mul_(factor)


def _shapes(state: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, torch.Size]]:
    return {name: {kind: tensor.shape for kind, tensor in kinds.items()} for name, kinds in state.items()}


def _build(
    kind: OptimizerKind, groups: list[FlatGroup], settings: ResolvedOptimizer, fused: bool
) -> torch.optim.Optimizer:
    chunks = [group.chunks() for group in groups]
    options = [
        {"params": list(of_group), "lr": settings.lr, "weight_decay": group.weight_decay}
        for group, of_group in zip(groups, chunks, strict=True)
    ]
    optimizer = kind.build(options, settings, fused=fused)
    # PyTorch makes the state in the first step; one that is left out needs it before.
    for of_group in chunks:
        for chunk, state in of_group.items():
            optimizer.state[chunk] = state
    return optimizer


def _members(
    model: nn.Module, settings: ResolvedOptimizer, parts: Sequence[nn.Module], held: Sequence[nn.Module]
) -> list[tuple[dict[str, nn.Parameter], float, float]]:
    """Return the parameters of each group by name, its weight decay and its factor of the learning rate."""
    depths = {parameter: depth for depth, part in enumerate(parts) for parameter in part.parameters()}
    at_times = {parameter: number for number, part in enumerate(held) for parameter in part.parameters()}
    members: dict[tuple[float, float, int], dict[str, nn.Parameter]] = {}
    undecayed = set() if settings.bn_weight_decay else set(batch_norm_parameters(model))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if parameter in undecayed else settings.weight_decay
            factor = _lr_factor(depths.get(parameter, max(1, len(parts))), settings)
            key = decay, factor, at_times.get(parameter, -1)
            members.setdefault(key, {})[name] = parameter
    return [(named, decay, factor) for (decay, factor, _), named in members.items()]


def _lr_factor(depth: int, settings: ResolvedOptimizer) -> float:
    return settings.layer_decay**depth * (settings.backbone_lr_factor if depth else 1.0)


def _memory(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().as_strided((parameter.numel(),), (1,))


def batch_norm_parameters(model: nn.Module) -> Iterable[nn.Parameter]:
    """Yield the parameters of a model's BatchNorms, which weight decay leaves out by default."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            yield from module.parameters(recurse=False)
