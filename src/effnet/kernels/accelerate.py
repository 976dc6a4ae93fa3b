"""Put this project's kernels into a finished model, from outside."""

from typing import TypeVar

from effnet.kernels.cpu_block import with_passes
from effnet.kernels.cpu_convolution import on_cpu
from effnet.kernels.workload import Mode, Workload
from effnet.models.efficientnet import EfficientNet
from effnet.models.replace import replace_modules
from effnet.runtime.cache import cache_dir

CACHE_FILE = "kernels/choices.json"

M = TypeVar("M", bound=EfficientNet)


def accelerate(model: M, workload: Workload, mode: Mode = "auto") -> M:
    """Replace modules of a model by ones that compute the same faster; parameters and keys stay what they are.

    Args:
        model: plain or quantized, on its device, in its memory format. It is changed in place.
        workload: what the run asks of the model.
        mode: ``auto`` takes what is known or measured to be faster here, ``triton`` the Triton kernels in every block
            that has a form for them, ``torch`` nothing but PyTorch's own.

    Returns:
        `model`.

    Raises:
        UserError: ``triton`` without a GPU or without Triton.
    """
    on_gpu = next(model.parameters()).device.type != "cpu"
    suits = workload.training and workload.channels_last and workload.dtype is None
    if mode == "auto" and suits and not on_gpu:
        replace_modules(model, on_cpu)
        # The compiler fuses by itself, and frozen statistics are no passes over a tensor.
        if workload.batch_statistics and not workload.compiled:
            replace_modules(model, with_passes)
    if mode == "triton" or (
        mode == "auto" and on_gpu and workload.channels_last and workload.batch_statistics
    ):
        from effnet.kernels.choose import choose_kernels  # with Triton's operators, which take seconds

        choose_kernels(model, workload, mode, cache_dir() / CACHE_FILE)
    return model
