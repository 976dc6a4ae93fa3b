"""Arithmetic of a run: FP32, TF32, or mixed precision in FP16 or BF16."""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from effnet.runtime.errors import UserError

AUTOCAST_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
TF32_CAPABILITY = (8, 0)  # Ampere
# Good steps after which the dynamic loss scale doubles; NVIDIA's implementation has the same.
GROWTH_INTERVAL = 100
# GradScaler requires a growth interval even for a static scale.
_NEVER = 2**31 - 1


class Precision:
    """Autocast and loss scaling (arXiv 1710.03740) of a run; on a GPU it turns TF32 on or off for the whole process.

    Args:
        name: as for `resolve_precision`.
        device: where to compute.
        static_loss_scale: loss scale of FP16 that never changes; None for a dynamic one.
        initial_loss_scale: dynamic loss scale at the start.

    Raises:
        UserError: TF32 on a device without it.
    """

    def __init__(
        self,
        name: str | None,
        device: torch.device,
        *,
        static_loss_scale: float | None = None,
        initial_loss_scale: float = 128.0,
    ) -> None:
        self.name = resolve_precision(name, device)
        self.device = device
        self._dtype = AUTOCAST_DTYPES.get(self.name)
        self._static_scale = static_loss_scale
        if device.type == "cuda":
            _allow_tf32(self.name == "tf32")
        # BF16 has FP32's range and needs no scaling.
        self.scaler = torch.amp.GradScaler(
            device.type,
            enabled=self.name == "fp16",
            init_scale=static_loss_scale or initial_loss_scale,
            growth_factor=2.0,
            backoff_factor=0.5,
            growth_interval=_NEVER if self._static_scale else GROWTH_INTERVAL,
        )

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which a forward pass runs."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, self._dtype)

    def scale(self, loss: Tensor) -> Tensor:
        """Return the scaled loss, to call `backward` on."""
        return self.scaler.scale(loss)

    def update_scale(self) -> None:
        """Adapt the loss scale after a step."""
        if self.scaler.is_enabled():
            self.scaler.update(self._static_scale)

    def loss_scale(self) -> float | None:
        """Return the present loss scale, None without scaling; waits for the device."""
        return self.scaler.get_scale() if self.scaler.is_enabled() else None

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the dynamic loss scale of `scaler.state_dict()`; its growth factor and interval stay as they are.

        A checkpoint of a run without loss scaling has none, and a static scale needs none.
        """
        if state and self.scaler.is_enabled() and self._static_scale is None:
            adapted = {name: state[name] for name in ("scale", "_growth_tracker")}
            self.scaler.load_state_dict(self.scaler.state_dict() | adapted)


def resolve_precision(name: str | None, device: torch.device) -> str:
    """Return the arithmetic that a setting stands for on a device.

    Args:
        name: one of the names that are returned, `amp` for FP16 on a GPU and BF16 on a CPU, or None for TF32 on a GPU
            that has it and FP32 elsewhere.
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

    Where PyTorch is set to be deterministic nothing changes, because timings, and so choices, differ between runs.
    """
    deterministic = torch.are_deterministic_algorithms_enabled() or torch.backends.cudnn.deterministic
    if device.type == "cuda" and not deterministic:
        torch.backends.cudnn.benchmark = True


def make_deterministic() -> None:
    """Make a GPU's results the same in every run, which costs speed; an operation that can't raises RuntimeError.

    To be called before the first operation on a GPU.
    """
    # cuBLAS reads this when PyTorch first uses it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Filling memory that is not yet written would only help to find bugs.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= TF32_CAPABILITY


def _allow_tf32(allowed: bool) -> None:
    # The newer attributes `fp32_precision` are not set directly, because torch.compile then fails when it reads
    # `get_float32_matmul_precision` and `cudnn.allow_tf32`. These two calls set old and new attributes.
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
