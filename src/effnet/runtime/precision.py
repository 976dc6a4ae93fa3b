"""Arithmetic of a run: FP32, TF32, or mixed precision in FP16 or BF16."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from effnet.recipe import ComputeSettings
from effnet.runtime.errors import UserError

AUTOCAST_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
TF32_CAPABILITY = (8, 0)  # Ampere
# Good steps after which the dynamic loss scale doubles; NVIDIA's implementation has the same.
GROWTH_INTERVAL = 100
# A static scale is never grown; the scaler asks for an interval all the same.
_NEVER = 2**31 - 1


class Precision:
    """Autocast and loss scaling (arXiv 1710.03740) as `settings` asks for, on `device`.

    On a GPU this turns TF32 on or off for the whole process.

    Raises:
        UserError: TF32 on a device without it.
    """

    def __init__(self, settings: ComputeSettings, device: torch.device) -> None:
        self.name = resolve_precision(settings.precision, device)
        self.device = device
        self._dtype = AUTOCAST_DTYPES.get(self.name)
        self._static_scale = settings.static_loss_scale
        if device.type == "cuda":
            _allow_tf32(self.name == "tf32")
        # BF16 has FP32's range and needs no scaling.
        self.scaler = torch.amp.GradScaler(
            device.type,
            enabled=self.name == "fp16",
            init_scale=self._static_scale or settings.initial_loss_scale,
            growth_factor=2.0,
            backoff_factor=0.5,
            growth_interval=_NEVER if self._static_scale else GROWTH_INTERVAL,
        )

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which a forward pass runs."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self._dtype)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss to call `backward` on."""
        return self.scaler.scale(loss)

    def update_scale(self) -> None:
        """Adapt the loss scale after a step."""
        if self.scaler.is_enabled():
            self.scaler.update(self._static_scale)

    def loss_scale(self) -> float | None:
        """Present loss scale, None without scaling; waits for the device."""
        return self.scaler.get_scale() if self.scaler.is_enabled() else None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the dynamic loss scale of `scaler.state_dict()`; how it adapts is this run's own.

        A checkpoint of a run without loss scaling has none, and a static scale needs none.
        """
        if state and self.scaler.is_enabled() and self._static_scale is None:
            adapted = {name: state[name] for name in ("scale", "_growth_tracker")}
            self.scaler.load_state_dict(self.scaler.state_dict() | adapted)


def resolve_precision(name: str | None, device: torch.device) -> str:
    """Arithmetic on a device: `name`, unless it leaves that open.

    Args:
        name: as in `ComputeSettings`. None stands for TF32 on a GPU that has it and FP32 elsewhere, `amp` for FP16 on
            a GPU and BF16 on a CPU.
        device: where to compute.

    Returns:
        One of `fp32`, `tf32`, `fp16` and `bf16`.

    Raises:
        UserError: TF32 on a device without it.
    """
    if name is None:
        return "tf32" if _has_tf32(device) else "fp32"
    if name == "amp":
        return "fp16" if device.type == "cuda" else "bf16"
    if name == "tf32" and not _has_tf32(device):
        if device.type == "cpu":
            raise UserError("--precision tf32 needs an Ampere GPU or newer, not a CPU; use fp32 or bf16")
        model = torch.cuda.get_device_name(device)
        raise UserError(f"--precision tf32 needs an Ampere GPU or newer, not {model}; use fp32 or fp16")
    return name


def tune_convolutions(device: torch.device) -> None:
    """Let cuDNN time its algorithms at the first batch of each shape; for runs whose shapes do not change.

    Where PyTorch has been told to be deterministic, cuDNN's choice stays as it is: timings differ from run to run.
    """
    deterministic = torch.are_deterministic_algorithms_enabled() or torch.backends.cudnn.deterministic
    if device.type == "cuda" and not deterministic:
        torch.backends.cudnn.benchmark = True


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= TF32_CAPABILITY


def _allow_tf32(allowed: bool) -> None:
    # Not by the newer attributes `fp32_precision`: setting those makes PyTorch's own compiler fail, which reads
    # `get_float32_matmul_precision` and `cudnn.allow_tf32`. These two set old and new attributes alike.
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
