"""Batches from the host to the device, copied while the device works on the one before."""

from collections.abc import Iterable, Iterator

import torch

from effnet.data.batch import Batch


def to_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches on `device`: as they are on the CPU, else copied one ahead on a stream of their own.

    The host waits for no copy: the stream that is current when a batch is taken waits for it instead. Images,
    targets and weights must lie in pinned memory for the copies to overlap with computation.
    """
    if device.type != "cuda":
        return iter(batches)
    return _ahead(batches, device)


def _ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    copies = torch.cuda.Stream(device)
    waiting: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(copies):
            images = batch.images.to(device, non_blocking=True)
            targets = batch.targets.to(device, non_blocking=True)
            weights = None if batch.weights is None else batch.weights.to(device, non_blocking=True)
            done = copies.record_event()
        if waiting is not None:
            yield _ready(*waiting, device)
        waiting = Batch(images, targets, batch.indices, weights), done
    if waiting is not None:
        yield _ready(*waiting, device)


def _ready(batch: Batch, done: torch.cuda.Event, device: torch.device) -> Batch:
    stream = torch.cuda.current_stream(device)
    stream.wait_event(done)
    # the memory came from the copying stream: it may be reused only when the computing one is done with it
    for tensor in (batch.images, batch.targets, batch.weights):
        if tensor is not None:
            tensor.record_stream(stream)
    return batch
