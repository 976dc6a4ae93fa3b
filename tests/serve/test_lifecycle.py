"""A server's start, its end, and models that change meanwhile."""

import http.client
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from effnet.cli import main
from effnet.serve import server as server_module
from tests.serve.serving import Reply, Running, exchange, form, photographs, weights_file

PHOTO = photographs(1)[0]


class Clients:
    """Threads that send one photograph again and again, each on a connection that is kept.

    Attributes:
        replies: the responses.
        failures: errors of requests that got no response.
    """

    def __init__(self, server: Running, count: int) -> None:
        self.replies: list[Reply] = []
        self.failures: list[Exception] = []
        self._server, self._is_over = server, threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        body, kind = form([("a.jpg", PHOTO)])
        connection = self._server.connect()
        try:
            while not self._is_over.is_set():
                reply = exchange(connection, "POST", "/classify", body, {"content-type": kind})
                self.replies.append(reply)
                if reply.headers.get("connection") == "close":  # the server ends
                    return
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(error)
        finally:
            connection.close()

    def end(self) -> None:
        """Let each thread end after its request."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)


@contextmanager
def clients(server: Running, count: int = 3) -> Iterator[Clients]:
    sending = Clients(server, count)
    try:
        yield sending
    finally:
        sending.end()


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    weights_file(tmp_path / "model.safetensors")
    server = Running(tmp_path, str(tmp_path / "model.safetensors"), "--watch", "0.2", "--max-wait-ms", "0")
    yield server
    server.kill()


def answer(server: Running) -> dict[str, float]:
    return probabilities(server.classify([PHOTO]))


def probabilities(reply: Reply) -> dict[str, float]:
    (image,) = reply.json["images"]
    return {each["name"]: each["probability"] for each in image["predictions"]}


def near(answer: dict[str, float]) -> Any:
    """An answer but for its last digits, in which batches of other sizes differ."""
    return pytest.approx(answer, abs=1e-5)


def events(server: Running, name: str) -> list[dict[str, Any]]:
    return [line for line in server.log() if line["event"] == name]


def test_models_are_exchanged_and_the_server_ended_without_a_dropped_request(
    running: Running, tmp_path: Path
) -> None:
    model, first, second = (tmp_path / f"{name}.safetensors" for name in ("model", "first", "second"))
    shutil.copy(model, first)
    weights_file(second, seed=1)
    of_first = answer(running)
    with clients(running) as sending:
        shutil.copy(second, tmp_path / "new")
        os.replace(tmp_path / "new", model)
        wait_for(lambda: events(running, "model opened again"))
        of_second = answer(running)

        (tmp_path / "broken").write_bytes(b"no weights")
        os.replace(tmp_path / "broken", model)
        (failed,) = wait_for(lambda: events(running, "model not opened again"))
        assert str(model) in failed["error"]
        assert answer(running) == near(of_second)

        shutil.copy(first, tmp_path / "new")
        os.replace(tmp_path / "new", model)
        running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(events(running, "model opened again")) >= 2)
        assert answer(running) == near(of_first)
        enough = len(sending.replies) + 20
        wait_for(lambda: len(sending.replies) >= enough)
        assert not sending.failures

        assert running.end() == 128 + signal.SIGTERM
    assert not sending.failures
    assert {reply.status for reply in sending.replies} == {200}
    assert of_first != near(of_second)
    given = [probabilities(reply) for reply in sending.replies]
    assert all(each == near(of_first) or each == near(of_second) for each in given)
    assert any(each == near(of_second) for each in given)
    closed = [reply for reply in sending.replies if reply.headers.get("connection") == "close"]
    assert len(closed) == 3  # each client has been told
    last = running.log_file.read_text().splitlines()[-1]
    assert "stopped by SIGTERM: " in last
    assert "requests answered" in last
    with pytest.raises(ConnectionRefusedError):
        running.connect().connect()


def test_ctrl_c(running: Running) -> None:
    assert running.classify([PHOTO]).status == 200
    assert running.end(signal.SIGINT) == 128 + signal.SIGINT
    text = running.log_file.read_text()
    assert "Traceback" not in text


def test_what_can_not_be_served(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error_of(*arguments: str) -> str:
        assert main(["serve", "--cpu", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"--port {port}" in error_of("--port", port)
    assert "--host no.such.host.invalid" in error_of("--host", "no.such.host.invalid")
    assert "/no/such.pth" in error_of("--port", "0", "/no/such.pth")
    assert "two models are called a" in error_of("a.pth", "b/a.onnx")
    (tmp_path / "token").write_text("short")
    assert "--token-file" in error_of("--token-file", str(tmp_path / "token"))
    assert "--token-file" in error_of("--token-file", str(tmp_path / "none"))


def test_the_end_of_an_answer_does_not_wait_for_an_acknowledgement() -> None:
    with (
        server_module._listening("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()[:2]),
    ):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
