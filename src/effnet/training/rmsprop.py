"""RMSprop in one pass over its tensors, with the interface of PyTorch's fused optimizers."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from effnet.kernels.rmsprop import Rates, update_for


class OnePassRMSprop(torch.optim.Optimizer):
    """`torch.optim.RMSprop` whose step changes nothing if the attribute `found_inf` is above 0.

    Args:
        groups: groups of parameters, whose state must hold ``square_avg`` and, with momentum, ``momentum_buffer``.
        lr, alpha, eps, weight_decay, momentum: as of `torch.optim.RMSprop`.

    Attributes:
        found_inf: float32 scalar on the parameters' device; to be set before a step.
    """

    found_inf: torch.Tensor

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        super().__init__(
            groups, {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the parameters that have gradients."""
        assert closure is None
        for group in self.param_groups:
            names = ("lr", "weight_decay", "alpha", "eps", "momentum")
            rates = Rates(**{name: group[name] for name in names})
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    update_for(parameter.device)(
                        parameter,
                        parameter.grad,
                        state["square_avg"],
                        state.get("momentum_buffer"),
                        self.found_inf,
                        rates,
                    )
