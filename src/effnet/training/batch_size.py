"""``--batch-size auto``: the largest batch of one process that fits its memory.

On a GPU, batches are tried until one does not fit; this has been written against the documentation and has not run on a
GPU yet. On a CPU, where the system would end the process, the memory of small batches is measured and extrapolated.
"""

import logging
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from effnet.data import DataPlace
from effnet.models.efficientnet import EfficientNet
from effnet.recipe import Recipe
from effnet.runtime.memory import available_memory, is_out_of_memory
from effnet.runtime.processes import Processes
from effnet.runtime.progress import working
from effnet.training.origin import find_origin
from effnet.training.setup import Opened, open_run
from effnet.weights import Build

_LOG = logging.getLogger("effnet")

LARGEST = 4096
_STEPS_PER_EPOCH = 10
_BUDGET = 0.8
"""share of the memory that a training may take"""
_COPIES = 8
"""bytes that a training keeps for each byte of weights: gradients and their flat copy, the optimizer's state, averages,
copies for a checkpoint"""
_FIRST = 2
"""images of the smallest batch that is measured"""
_MEASURED = 1 / 8
"""share of that memory at which no larger batch is measured"""


def fitting_batch_size(
    given: Recipe, path: DataPlace | None, processes: Processes, *, build: Build = EfficientNet
) -> int:
    """Return the largest power of two of images that fit one process and leave ten batches in an epoch, at least 2.

    A run that goes on keeps the batch of its checkpoint.

    Args:
        given: settings as given.
        path: folder of images; None with synthetic ones.
        processes: the processes of the run, all of which must call this; they get the same answer.
        build: makes the model of a configuration.

    Raises:
        UserError: settings, weights or data that can't be used.
    """
    checkpoint = find_origin(given).checkpoint
    if checkpoint is not None and "resolved_recipe" in checkpoint:
        return int(checkpoint["resolved_recipe"]["optimizer"]["batch_size"])
    # On a GPU the choice of kernels would be measured; a compiled run takes none of the CPU's.
    keeps_kernels = processes.device.type == "cpu" and not given.compute.compile
    probe = {
        "batch_size": _FIRST,
        "optimizer_batch_size": None,
        "compile": False,
        "kernels": given.compute.kernels if keeps_kernels else "torch",
        "gpu_affinity": "none",  # which must not be set twice
        "resume": None,
        "progressive_sizes": None,
    }
    opened = open_run(given.replace(probe), path, processes, ("train",), build=build)
    assert opened.data.train is not None
    of_data = opened.data.train.num_images // (processes.world_size * _STEPS_PER_EPOCH)
    most = min(LARGEST, of_data)
    with working("finding the batch size"):
        of_memory = (_tried if processes.device.type == "cuda" else _extrapolated)(opened, most)
    fits = min(processes.gather(min(of_memory, most)))
    found = 1 << max(1, fits.bit_length() - 1)
    _LOG.info("--batch-size auto: %d images in a batch of each process", found)
    return found


def _extrapolated(opened: Opened, most: int) -> int:
    """Return the images that fit the memory of the CPU; those above `most` don't matter."""
    budget = _BUDGET * available_memory() / opened.processes.local_world_size
    budget -= _COPIES * _weights(opened.model)
    # Only where activations outweigh the gradients does the memory grow linearly.
    enough = min(budget, max(_MEASURED * budget, 4 * _weights(opened.model)))
    size, few = _FIRST, _peak(opened, _FIRST)
    while True:
        many = _peak(opened, 2 * size)
        if many > enough or 2 * size >= most:
            break
        size, few = 2 * size, many
    data, side = opened.recipe.data, opened.recipe.model.image_size
    loaded = (data.workers * data.prefetch + 2) * 3 * side**2
    each = max(1.0, (many - few) / size)
    return int((budget - (few - size * each)) // (each + loaded))


def _peak(opened: Opened, size: int) -> int:
    """Return the most bytes that tensors hold at a time in a forward and a backward pass."""
    with _Allocated() as allocated:
        _pass(opened, size)
    return allocated.peak


class _Allocated(TorchDispatchMode):
    """Counts the bytes of the tensors made while it is on.

    Attributes:
        peak: the most at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._held = 0
        self._seen = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._count, result)
        return result

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in self._seen:
            self._seen[storage] = True
            self._held += storage.nbytes()
            self.peak = max(self.peak, self._held)
            weakref.finalize(storage, self._free, storage.nbytes())
        return tensor

    def _free(self, count: int) -> None:
        self._held -= count


def _tried(opened: Opened, most: int) -> int:
    """Return the images that fit the memory of the GPU; those above `most` are not tried."""
    device = opened.processes.device
    ballast = torch.empty(_COPIES * _weights(opened.model), dtype=torch.uint8, device=device)
    fits, size = 1, 2
    while size <= most and _fits(opened, size):
        fits, size = size, 2 * size
    del ballast
    torch.cuda.empty_cache()
    return fits


def _fits(opened: Opened, size: int) -> bool:
    try:
        _pass(opened, size)
        return torch.cuda.max_memory_allocated() < _BUDGET * torch.cuda.mem_get_info()[1]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        torch.cuda.empty_cache()


def _pass(opened: Opened, size: int) -> None:
    model, side = opened.model, opened.recipe.model.image_size
    layout = torch.channels_last if opened.recipe.compute.memory_format == "nhwc" else torch.contiguous_format
    images = torch.zeros((size, 3, side, side), device=opened.processes.device).contiguous(
        memory_format=layout
    )
    model.train()
    with opened.precision.autocast():
        loss: Tensor = model(images).float().sum()
    loss.backward()
    for parameter in model.parameters():
        parameter.grad = None


def _weights(model: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())
