"""Slow, huge and malformed requests are refused while others are answered."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.hostile_images import chunk, png
from tests.serve.serving import TOKEN, Running, form, photographs

PHOTO = photographs(1)[0]
HEAD = f"POST /classify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"


def raw(server: Running, *parts: bytes, seconds: float = 60) -> bytes:
    """Send bytes and return all that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), seconds) as connection:
        for part in parts:
            connection.sendall(part)
        received = b""
        while part := connection.recv(65536):
            received += part
    return received


def head_of(length: int, kind: str, more: str = "") -> bytes:
    return f"{HEAD}Content-Type: {kind}\r\nContent-Length: {length}\r\n{more}\r\n".encode()


@pytest.mark.slow
def test_slow_clients_are_told_off_while_others_are_answered(server: Running) -> None:
    body, kind = form([("a.jpg", PHOTO)])
    slow_body = head_of(len(body), kind) + body[: len(body) // 2]
    with ThreadPoolExecutor(40) as pool:
        bodies = [pool.submit(raw, server, slow_body) for _ in range(20)]
        heads = [pool.submit(raw, server, b"POST /classify HTTP/1.1\r\nHost: x\r\nX-Long") for _ in range(10)]
        silent = [pool.submit(raw, server) for _ in range(10)]
        for _ in range(10):
            assert server.classify([PHOTO]).status == 200
        for told in bodies:
            assert told.result().startswith(b"HTTP/1.1 408 ")
            assert b"did not arrive within 10 s" in told.result()
        for closed in [*heads, *silent]:
            assert closed.result() == b""


def test_a_body_without_an_end(server: Running) -> None:
    head = f"{HEAD}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    piece = b"10000\r\n" + b'"' * 65536 + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        connection.sendall(head)
        for _ in range(40):
            connection.sendall(piece)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_malformed_heads(server: Running) -> None:
    for start in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nHost\r\n\r\n"):
        assert raw(server, start + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    long = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 200_000
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        connection.sendall(long)
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b"may have 32,768 bytes" in answer
    # Two lengths, by which a proxy and this server might take different parts for the next request.
    two = head_of(4, "application/json", "Content-Length: 40\r\n")
    assert raw(server, two + b"{}{}").startswith(b"HTTP/1.1 400 ")


def test_decompression_bombs(server: Running) -> None:
    bombs = [
        png(12_000, 12_000),
        png(9_000, 16_000),
        png(8, 8, chunk(b"iCCP", b"x\0\0" + b"\0" * 1000)),
        b"GIF89a" + b"\xff" * 20,
    ]
    before = server.resident()
    reply = server.classify([*bombs[:2], bombs[3], PHOTO])
    assert reply.status == 422
    assert ["error" in image for image in reply.json["images"]] == [True, True, True, False]
    assert "more than --max-pixels allows" in reply.json["images"][0]["error"]
    assert server.resident() - before < 64 << 20
    assert server.classify([bombs[2]]).status in (200, 422)


def test_clients_that_go_away(server: Running) -> None:
    body, kind = form([("a.jpg", PHOTO)])
    for share in (0.2, 0.9, 1.0):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
                connection.sendall(head_of(len(body), kind) + body[: int(share * len(body))])
    assert server.classify([PHOTO]).status == 200


def test_names_are_only_names(server: Running) -> None:
    for name in ("../../etc/passwd", "/etc/passwd", "<script>alert(1)</script>", "x" * 1000, "\x1b[31m"):
        body, kind = form([(name, PHOTO)])
        reply = server.ask("POST", "/classify", body, {"content-type": kind})
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
        assert reply.body.isascii()
    body, kind = form([("x" * 5000, PHOTO)])
    assert server.ask("POST", "/classify", body, {"content-type": kind}).status == 400


def test_nothing_of_this_is_a_bug(server: Running) -> None:
    """Runs last of this module: no traceback, and all memory for requests has been given back."""
    end = time.monotonic() + 30
    while b"effnet_images_waiting 0.0" not in server.ask("GET", "/metrics").body:
        assert time.monotonic() < end
        time.sleep(0.1)
    text = server.log_file.read_text()
    assert "Traceback" not in text
    assert not [line for line in server.log() if line["level"] == "error"]
