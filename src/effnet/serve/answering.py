"""From photographs as they were sent to answers."""

import asyncio
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

import torch

from effnet.data.decode import BadImageError
from effnet.data.workers import worker_count
from effnet.inference.classifier import Answer
from effnet.inference.classify import as_json_object
from effnet.runtime.lone_threads import lone_threads
from effnet.serve.models import Served
from effnet.serve.upload import Upload


def decoding_threads() -> ThreadPoolExecutor:
    """Start a thread for each core that PyTorch uses, at most 16; PyTorch uses no further threads in them."""
    return lone_threads(min(worker_count(None), torch.get_num_threads()), "effnet-decode")


async def answers(
    served: Served, uploads: list[Upload], executor: Executor, *, topk: int | None, max_pixels: int
) -> list[dict[str, Any]]:
    """Return an object for each photograph, as ``effnet classify --json`` does.

    Args:
        served: the model.
        uploads: the photographs.
        executor: decodes them.
        topk: predictions for each, as in `Classifier.each`.
        max_pixels: pixels that a photograph may have.

    Raises:
        UserError: the model's answer is not finite, or its engine fails.
    """
    one = partial(_answer, served, executor=executor, topk=topk, max_pixels=max_pixels)
    tasks = [asyncio.ensure_future(one(upload)) for upload in uploads]
    try:
        return [
            as_json_object(upload.name, answer, unknown=served.classifier.unknown)
            for upload, answer in zip(uploads, await asyncio.gather(*tasks), strict=True)
        ]
    finally:
        for task in tasks:
            task.cancel()  # after an error in one of them, or the end of the time


async def _answer(
    served: Served, upload: Upload, *, executor: Executor, topk: int | None, max_pixels: int
) -> Answer | BadImageError:
    image = upload.image(max_pixels)
    loop = asyncio.get_running_loop()
    served.batcher.expect()
    try:
        pixels = await loop.run_in_executor(executor, served.classifier.prepare, image)
    except BaseException:
        served.batcher.withdraw()
        raise
    if isinstance(pixels, BadImageError):
        served.batcher.withdraw()
        return pixels
    row = await asyncio.wrap_future(served.batcher.submit(pixels))
    return served.classifier.answer(image, row, topk)
