"""Optimizers, one row each.

A new one is a row here and its name in `effnet.recipe.choices.OptimizerName`. It must update each element from that
element, its gradient and its state alone, since parameters are concatenated (`effnet.training.optimizer`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from effnet.kernels import cpu_rmsprop
from effnet.recipe import OptimizerSettings
from effnet.recipe.choices import OptimizerName
from effnet.runtime.errors import UserError
from effnet.runtime.registry import registry
from effnet.training.rmsprop import OnePassRMSprop

GroupOptions = list[dict[str, Any]]


@dataclass(frozen=True)
class OptimizerKind:
    """An optimizer of PyTorch's interface.

    Attributes:
        name: value of ``--optimizer``.
        summary: its update rule, for the documentation's table.
        create: makes it from groups of parameters, `lr` and the arguments in `settings`.
        fused: makes the form for GPUs from the same: it updates in one pass, and leaves everything as it is if its
            attribute `found_inf`, a float32 scalar on the device, is above 0.
        fused_on_cpu: returns whether that form is the faster one on this machine's CPU as well.
        settings: names of the settings that it takes, each with the name of its argument.
        states: its tensors of a parameter's shape, which start as zeros.
        momentum_states: further ones, kept with ``--momentum`` above 0 only.
        counts_steps: its state holds a step count.
        depends_on_steps: its update depends on that count, which a checkpoint then holds; in the fused form it lies on
            the GPU.
    """

    name: str
    summary: str
    create: Callable[..., torch.optim.Optimizer]
    fused: Callable[..., torch.optim.Optimizer]
    fused_on_cpu: Callable[[], bool] = lambda: False
    settings: Mapping[str, str] = field(default_factory=dict)
    states: tuple[str, ...] = ()
    momentum_states: tuple[str, ...] = ()
    counts_steps: bool = False
    depends_on_steps: bool = False

    def state_names(self, settings: OptimizerSettings) -> tuple[str, ...]:
        """Return the names of the tensors of a parameter's shape."""
        return self.states + (self.momentum_states if settings.momentum else ())

    def build(
        self, groups: GroupOptions, settings: OptimizerSettings, *, fused: bool
    ) -> torch.optim.Optimizer:
        """Make the optimizer.

        Args:
            groups: groups of parameters with their `lr` and `weight_decay`, as PyTorch's optimizers take them.
            settings: the settings.
            fused: in the fused form.
        """
        arguments = {argument: getattr(settings, name) for name, argument in self.settings.items()}
        return (self.fused if fused else self.create)(groups, **arguments)


OPTIMIZERS = registry(
    OptimizerName,
    OptimizerKind(
        "rmsprop",
        "RMSprop with momentum",
        partial(torch.optim.RMSprop, foreach=False),
        OnePassRMSprop,
        fused_on_cpu=cpu_rmsprop.is_available,
        settings={"momentum": "momentum", "rmsprop_alpha": "alpha", "rmsprop_eps": "eps"},
        states=("square_avg",),
        momentum_states=("momentum_buffer",),
        counts_steps=True,
    ),
    OptimizerKind(
        "sgd",
        "Stochastic gradient descent with momentum, Nesterov's with `--nesterov`",
        partial(torch.optim.SGD, foreach=False),
        partial(torch.optim.SGD, fused=True),
        settings={"momentum": "momentum", "nesterov": "nesterov"},
        momentum_states=("momentum_buffer",),
    ),
    OptimizerKind(
        "adamw",
        "AdamW (arXiv 1711.05101): Adam with decoupled weight decay",
        partial(torch.optim.AdamW, foreach=False),
        partial(torch.optim.AdamW, fused=True),
        settings={"adamw_betas": "betas", "adamw_eps": "eps"},
        states=("exp_avg", "exp_avg_sq"),
        counts_steps=True,
        depends_on_steps=True,
    ),
)


def optimizer_kind(settings: OptimizerSettings) -> OptimizerKind:
    """Return the row that the settings name.

    Raises:
        UserError: a switch is on that belongs to other optimizers.
    """
    chosen = OPTIMIZERS[settings.optimizer]
    for other in OPTIMIZERS.values():
        for name in other.settings.keys() - chosen.settings.keys():
            if getattr(settings, name) is True:
                raise UserError(f"--{name.replace('_', '-')} goes with --optimizer {other.name}")
    return chosen
