"""A server in a process of its own, its clients, and models for it."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from effnet.weights import WeightsMetadata, create_model, save_weights
from effnet.weights.confidence import Confidence, Unknown
from tests.hostile_images import encoded, noise
from tests.runs import CLASSES, PREPROCESSING

TOKEN = "a-secret-of-this-test"


@torch.no_grad()
def weights_file(path: Path, *, seed: int = 0, several: bool = False) -> Path:
    """Write weights of three classes with a temperature, whose answers differ between images.

    Args:
        path: file to write.
        seed: of the weights.
        several: an image may have several labels, with thresholds; otherwise there is a rule for unknown images.
    """
    torch.manual_seed(seed)
    model = create_model("efficientnet-lite0", num_classes=3).eval()
    classifier = model.get_classifier()
    assert isinstance(classifier, torch.nn.Linear)
    torch.nn.init.normal_(classifier.weight)
    logits = model((torch.rand(16, 3, 32, 32) - 0.5) / 0.2)
    classifier.weight.mul_(3 / logits.std(0)[:, None])
    classifier.bias.sub_(3 * (logits / logits.std(0)).mean(0))
    metadata = WeightsMetadata(
        "efficientnet-lite0",
        PREPROCESSING,
        padding="same",
        classes=CLASSES,
        confidence=Confidence(2.0, Unknown("max-probability", 0.6)),
        thresholds=(0.3, 0.5, 0.7) if several else (),
    )
    save_weights(path, model.state_dict(), metadata)
    return path


def photographs(count: int) -> list[bytes]:
    """Return images of noise as JPEG files, each brighter than the one before."""
    shades = [k / count for k in range(1, count + 1)]
    pixels = [Image.fromarray((np.asarray(noise(60, 80)) * shade).astype(np.uint8)) for shade in shades]
    return [encoded(image, "JPEG", quality=90) for image in pixels]


@dataclass
class Reply:
    """A response.

    Attributes:
        status: HTTP's status.
        headers: by name in lower case.
        body: its content.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The content as JSON."""
        return json.loads(self.body)


class Running:
    """A server that runs.

    Args:
        folder: for its log.
        arguments: of `effnet serve`.

    Attributes:
        port: the port that it listens on.
        process: its process.
    """

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.log_file = folder / "log.jsonl"
        command = [sys.executable, "-m", "effnet", "serve", "--port", "0", "--cpu", *arguments]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+) ", line)
        assert found, self.log_file.read_text()
        self.port = int(found[1])

    @property
    def address(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        """Return a new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: str | None = TOKEN,
    ) -> Reply:
        """Send a request on a connection of its own and return the response."""
        connection = self.connect()
        try:
            return exchange(connection, method, path, body, headers, token=token)
        finally:
            connection.close()

    def classify(self, files: Sequence[bytes], query: str = "") -> Reply:
        """Ask for the answers of files."""
        return self.send(f"/classify{query}", files)

    def send(self, path: str, files: Sequence[bytes]) -> Reply:
        """Send files as a form."""
        body, kind = form([(f"{index}.jpg", data) for index, data in enumerate(files)])
        return self.ask("POST", path, body, {"content-type": kind})

    def log(self) -> list[dict[str, Any]]:
        """Return the lines of its log that are JSON."""
        lines = self.log_file.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def logged(self, request: str) -> list[dict[str, Any]]:
        """Wait for the lines about a request, which are written after its reply, and return them."""
        end = time.monotonic() + 30
        while not (lines := [line for line in self.log() if line.get("id") == request]):
            assert time.monotonic() < end, f"no line about {request}"
            time.sleep(0.02)
        return lines

    def resident(self) -> int:
        """Return the bytes of memory in use."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self) -> None:
        """End the process in any case."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    token: str | None = TOKEN,
) -> Reply:
    """Send a request on a connection and return the response."""
    with_token = {"authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, body, {**with_token, **(headers or {})})
    response = connection.getresponse()
    return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def form(files: Sequence[tuple[str, bytes]], field: str = "file") -> tuple[bytes, str]:
    """Return a form with files, and its content type."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files
    ]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"
