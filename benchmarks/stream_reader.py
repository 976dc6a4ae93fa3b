"""One process that reads an epoch of a streamed set: `python -m benchmarks.stream_reader URL RANK WORLD WORKERS OUT`.

OUT gets one JSON object per line after each tenth, and at the end one with the digest of all that was read.
"""

import hashlib
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import torch

from effnet.data import DataRequest, Preprocessing, open_data
from effnet.data.loader import ImageLoader
from effnet.recipe import Recipe
from effnet.training.facts import facts_of

BATCH, TENTHS = 256, 10


def read(url: str, rank: int, world: int, workers: int, out: Path) -> None:
    """Read the validation split in order, as one process of `world`."""
    settings = {
        "data_backend": "packed",
        "workers": workers,
        "batch_size": BATCH,
        "on_bad_image": "skip",
        "augmentation": "none",
    }
    given = Recipe().replace(settings)
    recipe = given.resolve(facts_of(given, precision="fp32", num_classes=10, world_size=world))
    request = DataRequest(
        recipe, Path(url), Preprocessing(8, 8), torch.device("cpu"), rank, world, splits=("val",)
    )
    loader = open_data(request).val
    assert isinstance(loader, ImageLoader)
    digest, images, batches = hashlib.sha256(), 0, len(loader)
    begun, last = time.monotonic(), 0
    with out.open("w", encoding="utf-8") as log:
        for number, batch in enumerate(loader, start=1):
            assert batch.indices is not None
            digest.update(batch.indices.numpy().tobytes() + batch.images.contiguous().numpy().tobytes())
            images += len(batch.targets)
            if number * TENTHS // batches > (number - 1) * TENTHS // batches:
                seconds, begun = time.monotonic() - begun, time.monotonic()
                rate, last = (images - last) / seconds, images
                print(json.dumps({"rate": rate, "memory": _memory()}), file=log, flush=True)
        found = {"digest": digest.hexdigest(), "images": images, "bad": sorted(loader.bad_images)}
        print(json.dumps(found), file=log, flush=True)
    loader.close()


def _memory() -> int:
    """Return the resident bytes of this process and its workers; pages that they share count in each."""
    numbers = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    pages = sum(int(Path(f"/proc/{number}/statm").read_text().split()[1]) for number in numbers)
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, world, workers = map(int, sys.argv[2:5])
    read(sys.argv[1], rank, world, workers, Path(sys.argv[5]))
