"""A packed set of many tiny images streamed from an object store, undisturbed and with faults.

The store is a process of its own that answers range requests over HTTP. Two processes with several workers each read
the images in validation's order: undisturbed, with the store killed and started again in the middle, which must change
nothing, and with damaged images in a shard, which must be named.
"""

import hashlib
import io
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.stream_reader import TENTHS
from effnet.benchmark.environment import environment
from effnet.benchmark.tables import markdown
from effnet.data.packed_index import FORMAT, INDEX, RECORD, RECORDS, VERSION
from effnet.runtime.errors import UserError

SIDE = 8  # pixels
_KINDS = 251  # different pictures
_CLASSES = 10
_PER_SHARD = 4000
_STRIDE = 2560  # bytes from an image to the next: as in a tar with a header and a target for each
_STARTS_WITHIN = 30.0  # seconds
_LOOKS = 0.02  # seconds
_MOST_SECONDS = 7200.0


@dataclass(frozen=True)
class Plan:
    """Settings of the benchmark.

    Attributes:
        folder: for the set, which is removed at the end.
        images: images of the set.
        processes: processes that share an epoch.
        workers: of each process.
        damaged: images whose bytes are damaged for the last epoch.
    """

    folder: Path
    images: int = 1_000_000
    processes: int = 2
    workers: int = 2
    damaged: int = 3


def write_set(folder: Path, images: int) -> None:
    """Write the validation split of a packed set of JPEG files of 8 pixels a side."""
    (folder / "val").mkdir(parents=True)
    pictures = np.random.default_rng(0).integers(0, 256, (_KINDS, SIDE, SIDE, 3), dtype=np.uint8)
    encoded = [_jpeg(picture) for picture in pictures]
    places = np.zeros((_KINDS, _STRIDE), np.uint8)
    for row, content in zip(places, encoded, strict=True):
        row[: len(content)] = np.frombuffer(content, np.uint8)
    kinds = np.arange(images) % _KINDS
    shards = []
    for number, first in enumerate(range(0, images, _PER_SHARD)):
        content = places[kinds[first : first + _PER_SHARD]].tobytes()
        name = f"{number:06d}.tar"
        (folder / "val" / name).write_bytes(content)
        shards.append({"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    records = np.zeros(images, RECORD)
    records["shard"] = np.arange(images) // _PER_SHARD
    records["offset"] = np.arange(images) % _PER_SHARD * _STRIDE
    records["size"] = np.array([len(content) for content in encoded])[kinds]
    records["target"] = kinds % _CLASSES
    for name in ("height", "width", "original_height", "original_width"):
        records[name] = SIDE
    buffer = io.BytesIO()
    np.save(buffer, records)
    (folder / "val" / RECORDS).write_bytes(buffer.getvalue())
    index = {
        "format": FORMAT,
        "version": VERSION,
        "settings": {"size": SIDE, "quality": 95, "images_per_shard": _PER_SHARD},
        "classes": [str(number) for number in range(_CLASSES)],
        "shards": shards,
        "records_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
    }
    (folder / "val" / INDEX).write_text(json.dumps(index))


def _jpeg(picture: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


class Store:
    """The server process of a folder; it can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start the process and wait until it answers."""
        command = [sys.executable, "-m", "benchmarks.store", str(self._folder), str(self._port)]
        self._process = subprocess.Popen(command)
        end = time.monotonic() + _STARTS_WITHIN
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return
            except OSError:
                time.sleep(_LOOKS)
        raise UserError(f"the store at {self.url} does not start")

    def kill(self) -> None:
        """Kill the process, whatever it is answering."""
        self._process.kill()
        self._process.wait()


@contextmanager
def _serving(folder: Path) -> Iterator[Store]:
    store = Store(folder)
    try:
        yield store
    finally:
        store.kill()


def read_epoch(plan: Plan, store: Store, logs: Path, *, restart: bool = False) -> list[list[dict[str, Any]]]:
    """Return the lines that each process writes about its part of an epoch.

    Args:
        plan: the settings.
        store: to read from.
        logs: folder for the processes' files.
        restart: kill the store after the first process's fifth tenth and start it again.

    Raises:
        UserError: a process failed; its last line is told.
    """
    files = [logs / f"{rank}.jsonl" for rank in range(plan.processes)]
    for file in files:
        file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.stream_reader", store.url]
    readers = [
        subprocess.Popen(
            [*command, str(rank), str(plan.processes), str(plan.workers), str(file)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, file in enumerate(files)
    ]
    try:
        if restart:
            while readers[0].poll() is None and len(_lines(files[0])) < TENTHS // 2:
                time.sleep(_LOOKS)
            store.kill()
            store.start()
        for reader in readers:
            said = reader.communicate(timeout=_MOST_SECONDS)[1].strip().splitlines()
            if reader.returncode:
                raise UserError(f"a reader failed: {' '.join(said[-1:])}")
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    return [[json.loads(line) for line in _lines(file)] for file in files]


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []


def benchmark_stream(plan: Plan) -> dict[str, Any]:
    """Measure.

    Returns:
        Plain values for JSON: tenths of the undisturbed epoch, and what became of the faults.

    Raises:
        UserError: a reader failed.
    """
    plan.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=plan.folder) as name:
        folder, logs = Path(name, "set"), Path(name)
        write_set(folder, plan.images)
        with _serving(folder) as store:
            calm = read_epoch(plan, store, logs)
            restarted = read_epoch(plan, store, logs, restart=True)
            _damage(folder / "val" / "000000.tar", plan.damaged)
            damaged = read_epoch(plan, store, logs)
    ends = {"undisturbed": calm, "restarted": restarted, "damaged": damaged}
    tenths = [
        {name: sum(of[name] for of in together) for name in ("rate", "memory")}
        for together in zip(*(lines[:-1] for lines in calm), strict=True)
    ]
    return {
        "benchmark": "stream",
        "images": plan.images,
        "processes": plan.processes,
        "workers": plan.workers,
        "tenths": tenths,
        "images_read": {name: sum(lines[-1]["images"] for lines in of) for name, of in ends.items()},
        "same_after_restart": [of[-1] for of in calm] == [of[-1] for of in restarted],
        "bad": sorted(bad for lines in damaged for bad in lines[-1]["bad"]),
        "environment": environment(),
    }


def _damage(shard: Path, images: int) -> None:
    """Invert the first bytes of some images."""
    content = bytearray(shard.read_bytes())
    for start in range(0, images * _STRIDE, _STRIDE):
        content[start : start + 64] = bytes(255 - value for value in content[start : start + 64])
    shard.write_bytes(content)


def report(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    rows = [
        [str(number), f"{tenth['rate']:.0f}", f"{tenth['memory'] / 2**20:.0f}"]
        for number, tenth in enumerate(result["tenths"], start=1)
    ]
    read = result["images_read"]
    same = "the same bytes in the same order" if result["same_after_restart"] else "DIFFERENT images"
    return "\n".join(
        [
            markdown(("tenth", "images/s", "MiB"), rows),
            "",
            f"undisturbed: {read['undisturbed']} of {result['images']} images",
            f"store killed and started again: {same}",
            f"damaged shard: {read['damaged']} images, left out: {', '.join(result['bad'])}",
        ]
    )
