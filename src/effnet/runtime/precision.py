"""Arithmetic of a run: FP32, TF32, or mixed precision in FP16 or BF16."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from effnet.recipe import ComputeSettings
from effnet.runtime.errors import UserError

AUTOCAST_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
# A static scale is never grown; the scaler asks for an interval all the same.
_NEVER = 2**31 - 1


class Precision:
    """Autocast and loss scaling (arXiv 1710.03740) as `settings` asks for, on `device`.

    Raises:
        UserError: TF32 on a device without it.
    """

    def __init__(self, settings: ComputeSettings, device: torch.device) -> None:
        self.name = resolve_precision(settings.precision, device)
        self.device = device
        self._dtype = AUTOCAST_DTYPES.get(self.name)
        self._static_scale = settings.static_loss_scale
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high" if self.name == "tf32" else "highest")
            torch.backends.cudnn.allow_tf32 = self.name == "tf32"
        # BF16 has FP32's range and needs no scaling.
        self.scaler = torch.amp.GradScaler(
            device.type,
            enabled=self.name == "fp16",
            init_scale=self._static_scale or 2.0**16,
            growth_interval=_NEVER if self._static_scale else 2000,
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


def resolve_precision(name: str, device: torch.device) -> str:
    """`name`, with `amp` replaced by the device's mixed precision: FP16 on a GPU, BF16 on a CPU.

    Raises:
        UserError: TF32 on a device without it.
    """
    if name == "amp":
        return "fp16" if device.type == "cuda" else "bf16"
    if name == "tf32":
        if device.type == "cpu":
            raise UserError("--precision tf32 needs an Ampere GPU or newer, not a CPU; use fp32 or bf16")
        if torch.cuda.get_device_capability(device) < (8, 0):
            model = torch.cuda.get_device_name(device)
            raise UserError(f"--precision tf32 needs an Ampere GPU or newer, not {model}; use fp32 or fp16")
    return name
