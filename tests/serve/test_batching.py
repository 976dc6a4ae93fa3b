"""Batches of a server, and what happens where its queue is full or its time over."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from effnet.data.decode import Pixels
from effnet.inference.classifier import Row
from effnet.runtime.errors import UserError
from effnet.serve.app import Api
from effnet.serve.batching import Batcher, batch_sizes
from effnet.serve.metrics import Metrics
from effnet.serve.models import files_of
from effnet.serve.settings import NamedSource, ServeSettings, named_sources
from tests.serve.serving import form, photographs

PIXELS = np.zeros((4, 4, 3), np.uint8)


class Computer:
    """Computes when it is allowed to; each answer is the image's first byte.

    Attributes:
        sizes: of the batches so far.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.may = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)

    def __call__(self, images: Sequence[Pixels]) -> list[Row]:
        self.begun.release()
        assert self.may.acquire(timeout=60)
        self.sizes.append(len(images))
        if images[0][0, 0, 0] == 255:
            raise UserError("the engine fails")
        return [Row(image[0, 0].astype(np.float32), False) for image in images]


@contextmanager
def batcher(computer: Computer, sizes: list[int], max_wait: float = 0.0) -> Iterator[Batcher]:
    made = Batcher(
        computer, sizes, 4, trial=(), max_wait=max_wait, prepare_thread=lambda: None, observe=lambda *_: None
    )
    made.ready.result(60)
    yield made
    computer.may.release(1000)
    made.close()


@pytest.mark.parametrize(("compiles", "expected"), [(False, [1, 5]), (True, [1, 4, 1])])
def test_what_gathers_meanwhile_is_the_next_batch(compiles: bool, expected: list[int]) -> None:
    computer = Computer()
    with batcher(computer, batch_sizes(8, compiles_each_size=compiles)) as made:
        made.expect(6)
        answers = [made.submit(PIXELS + 1)]
        assert computer.begun.acquire(timeout=60)
        answers += [made.submit(PIXELS + number) for number in range(2, 7)]
        computer.may.release(1000)
        assert [answer.result(60).probabilities[0] for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert computer.sizes == expected


def test_a_batch_waits_for_expected_images_alone() -> None:
    computer = Computer()
    computer.may.release(1000)
    with batcher(computer, [1, 2, 3, 4], max_wait=3600) as made:
        made.expect(1)
        assert made.submit(PIXELS).result(60)  # at once: nothing else is expected
        made.expect(3)
        first = made.submit(PIXELS)
        second = made.submit(PIXELS)
        assert not first.done()
        made.withdraw()  # the third could not be decoded
        assert first.result(60)
        assert second.result(60)
    assert computer.sizes == [1, 2]


def test_an_error_and_a_cancelled_image_concern_no_others() -> None:
    computer = Computer()
    with batcher(computer, [1, 2]) as made:
        made.expect(5)
        failing = made.submit(PIXELS + 255)
        assert computer.begun.acquire(timeout=60)
        gone, good, other = (made.submit(PIXELS + number) for number in (1, 2, 3))
        assert gone.cancel()
        computer.may.release(1000)
        with pytest.raises(UserError, match="the engine fails"):
            failing.result(60)
        assert [each.result(60).probabilities[0] for each in (good, other)] == [2, 3]
    assert computer.sizes == [1, 2]


def test_sizes() -> None:
    assert batch_sizes(3, compiles_each_size=False) == [1, 2, 3]
    assert batch_sizes(1, compiles_each_size=True) == [1]
    assert batch_sizes(8, compiles_each_size=True) == [1, 2, 4, 8]
    assert batch_sizes(12, compiles_each_size=True) == [1, 2, 4, 8, 12]


class OneModel:
    """Stands for the models of a server: one whose images `computer` answers."""

    def __init__(self, made: Batcher) -> None:
        self.name, self.batcher, self.classifier = "one", made, self
        self.classes: tuple[str, ...] = ()

    @contextmanager
    def using(self, name: str | None) -> Iterator["OneModel"]:
        yield self

    def prepare(self, image: Any) -> Pixels:
        return PIXELS


async def ask(api: Any, files: int) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Send photographs to an application as a server does; return status, content and headers of the response."""
    body, kind = form([("a.jpg", photographs(1)[0])] * files)
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST", "path": "/classify", "query_string": b"", "headers": headers}
    requests = iter([{"type": "http.request", "body": body, "more_body": False}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(requests)

    async def send(message: Any) -> None:
        sent.append(message)

    await api(scope, receive, send)
    shown = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], json.loads(sent[1]["body"]), shown


def test_a_full_queue_and_an_answer_that_is_late() -> None:
    settings = ServeSettings(models=(NamedSource("one", "one"),), queue=4, timeout=0.5)
    computer = Computer()

    async def scene() -> None:
        with batcher(computer, [1]) as made, ThreadPoolExecutor(2) as pool:
            api = Api(settings, OneModel(made), Metrics(), pool).app()
            first = asyncio.ensure_future(ask(api, 3))
            while not computer.begun.acquire(blocking=False):
                await asyncio.sleep(0.01)
            status, content, headers = await ask(api, 2)
            assert (status, headers["retry-after"]) == (429, "1")
            assert "3 images are waiting" in content["error"]
            assert (await ask(api, 5))[0] == 413
            status, content, headers = await first
            assert (status, headers["retry-after"]) == (503, "1")
            assert "no answer within 0.5 s" in content["error"]
            assert (await ask(api, 4))[0] == 503  # the places of the first are free again

    asyncio.run(scene())


def test_names_of_models(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.pth").touch()
    (tmp_path / "runs/flowers").mkdir(parents=True)
    given = ["x/model_best.pth.tar", "lite=y/z.onnx", "a=b.pth", "runs/flowers/", "efficientnet-lite0"]
    assert [(each.name, each.source) for each in named_sources(given)] == [
        ("model_best", "x/model_best.pth.tar"),
        ("lite", "y/z.onnx"),
        ("a-b", "a=b.pth"),
        ("flowers", "runs/flowers/"),
        ("efficientnet-lite0", "efficientnet-lite0"),
    ]
    with pytest.raises(UserError, match="two models are called z"):
        named_sources(["z=a.pth", "b/z.onnx"])


def test_a_change_of_a_model_s_files_is_seen(tmp_path: Any) -> None:
    for name in ("m.xml", "m.bin", "other.bin"):
        (tmp_path / name).write_bytes(b"1")
    before = files_of(str(tmp_path / "m.xml"))
    assert before
    (tmp_path / "other.bin").write_bytes(b"22")
    assert files_of(str(tmp_path / "m.xml")) == before
    (tmp_path / "m.bin").write_bytes(b"22")
    assert files_of(str(tmp_path / "m.xml")) != before
    assert files_of("efficientnet-lite0") == files_of(str(tmp_path / "none.pth")) == ()
