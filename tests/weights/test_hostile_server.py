"""Downloads from a server that lies, or never ends: one line, in time, and nothing of it is kept."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest
import trustme

from effnet.runtime import http, http_response
from effnet.runtime.errors import UserError
from effnet.weights.download import download

PATIENCE_S = 0.4
BODY = bytes(range(256)) * 400
Answer = Callable[[socket.socket, bytes], None]
"""sends an answer to a request"""


class Server:
    """An https server that sends the bytes it is told to."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._socket = context.wrap_socket(socket.create_server(("localhost", 0)), server_side=True)
        self.url = f"https://localhost:{self._socket.getsockname()[1]}/w.pth"
        self.answer: Answer = say(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        self.requests: list[bytes] = []
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self.ended.is_set():
            with contextlib.suppress(OSError):
                connection, _ = self._socket.accept()
                threading.Thread(target=self._respond, args=(connection,), daemon=True).start()

    def _respond(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += connection.recv(65536)
            self.requests.append(request)
            self.answer(connection, request)

    def close(self) -> None:
        self.ended.set()
        self._socket.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for module in (http, http_response):
        monkeypatch.setattr(module, "PATIENCE_S", PATIENCE_S)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    serving = Server(context)
    yield serving
    serving.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "w.pth"


def say(*parts: bytes) -> Answer:
    def answer(connection: socket.socket, request: bytes) -> None:
        for part in parts:
            connection.sendall(part)

    return answer


def repeat(start: bytes, again: bytes, pause: float = 0.0) -> Answer:
    """Say something, and something else for ever."""

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(start)
        for part in cycle([again]):
            connection.sendall(part)
            time.sleep(pause)

    return answer


def with_headers(*headers: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


OK = with_headers(f"Content-Length: {len(BODY)}")
CHUNKED = with_headers("Transfer-Encoding: chunked")
MALFORMED = {
    "length in letters": say(with_headers("Content-Length: abc"), BODY),
    "length below zero": say(with_headers("Content-Length: -1"), BODY),
    "length of 31 digits": say(with_headers(f"Content-Length: {10**30}"), BODY),
    "length of 5,000 digits": say(with_headers(f"Content-Length: {'9' * 5000}"), BODY),
    "length of 900 petabytes": say(with_headers(f"Content-Length: {9 * 10**17}"), BODY),
    "two lengths": say(with_headers("Content-Length: 10", f"Content-Length: {len(BODY)}"), BODY),
    "a list of lengths": say(with_headers("Content-Length: 10, 20"), BODY),
    "a range of nothing": say(with_headers("Content-Range: bytes */9", status="206 Part"), BODY),
    "a range in letters": say(with_headers("Content-Range: bytes a-b/c", status="206 Part"), BODY),
    "a range of 5,000 digits": say(
        with_headers(f"Content-Range: bytes 0-{'9' * 5000}/{'9' * 5000}", status="206 Part"), BODY
    ),
    "a chunk in letters": say(CHUNKED, b"zz\r\nabc\r\n0\r\n\r\n"),
    "a chunk below zero": say(CHUNKED, b"-5\r\nabc\r\n0\r\n\r\n"),
    "a chunk cut short": say(CHUNKED, b"fffff\r\nabc"),
    "a chunk size without an end": repeat(CHUNKED, b"0" * 4096),
    "chunks of a byte in 64 KiB": repeat(CHUNKED, b"1;" + b"x" * 65000 + b"\r\na\r\n", 0.05),
    "trailers without an end": repeat(CHUNKED + b"3\r\nabc\r\n0\r\n", b"X: y\r\n" * 500),
    "no status": say(b"hello\r\n\r\n"),
    "a status of letters": say(b"HTTP/1.1 abc\r\n\r\n"),
    "a status in escapes": say(b"HTTP/1.1 \x1b[31m\r\n\r\n"),
    "another protocol": say(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "nothing": say(),
    "a header without an end": repeat(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 4096),
    "headers without an end": repeat(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100),
    "interim answers without an end": repeat(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "headers byte by byte": repeat(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05),
    "a body byte by byte": repeat(OK, b"x", 0.05),
    "chunks byte by byte": repeat(CHUNKED, b"1\r\nx\r\n", 0.05),
    "silence": repeat(b"", b"", 0.05),
    "silence after the headers": repeat(OK, b"", 0.05),
    "a redirection to nowhere": say(with_headers("Location: https://[", status="302 Found")),
    "a redirection without a host": say(with_headers("Location: https:///x", status="302 Found")),
    "a redirection to a port in letters": say(with_headers("Location: https://a:b/", status="302 Found")),
    "a redirection to a long name": say(with_headers(f"Location: https://{'a' * 300}/", status="302 Found")),
    "a redirection to a file": say(with_headers("Location: file:///etc/passwd", status="302 Found")),
    "a redirection to ftp": say(with_headers("Location: ftp://localhost/w", status="302 Found")),
    "a redirection in escapes": say(with_headers("Location: http://x/\x1b[2J\x07", status="302 Found")),
    "a redirection with a body without an end": repeat(
        with_headers("Location: http://x/", status="302 Found"), b"x" * 4096
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_one_line_in_time(server: Server, path: Path, name: str) -> None:
    server.answer = MALFORMED[name]
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        download(server.url, path)
    message = str(caught.value)
    assert message.isprintable(), message
    assert "w.pth" in message or "only https" in message or "redirect" in message, message
    assert time.monotonic() - started < 10  # the issue's limit; four attempts of `PATIENCE_S` at most
    assert not path.exists()
    assert len(server.requests) <= http.REDIRECTIONS + 1


def test_the_end_of_a_body_without_a_length_is_the_publishers_size(server: Server, path: Path) -> None:
    server.answer = repeat(with_headers(), BODY)
    with pytest.raises(
        UserError, match=f"more than the {len(BODY)} bytes that were expected; nothing was kept"
    ):
        download(server.url, path, size=len(BODY))
    assert {entry.name for entry in path.parent.iterdir()} == {"w.pth.lock"}


def test_another_length_than_the_publishers_is_not_waited_for(server: Server, path: Path) -> None:
    server.answer = repeat(with_headers("Content-Length: 4000000000"), b"", 0.05)
    with pytest.raises(UserError, match="the server offers 4000000000 bytes, not 102400; nothing was kept"):
        download(server.url, path, size=len(BODY))
    assert len(server.requests) == 1


def test_a_part_does_not_grow_beyond_the_file(server: Server, path: Path) -> None:
    """A resumed part whose length contradicts the range that it is said to be."""

    def answer(connection: socket.socket, request: bytes) -> None:
        if b"\r\nRange:" not in request:
            connection.sendall(with_headers(f"Content-Length: {len(BODY)}", 'ETag: "1"') + BODY[:1000])
        else:
            rest = f"Content-Range: bytes 1000-{len(BODY) - 1}/{len(BODY)}"
            connection.sendall(with_headers(rest, "Content-Length: 999999", status="206 Part") + BODY * 10)

    server.answer = answer
    with pytest.raises(UserError, match=r"more than the 101400 bytes that were expected"):
        download(server.url, path)
    assert {entry.name for entry in path.parent.iterdir()} == {"w.pth.lock"}


@pytest.mark.parametrize("etag", ['"\x1b[31m"', '"a\r\n b"', f'"{"x" * 5000}"', '"é"'])
def test_a_strange_validator_is_not_sent_back(server: Server, path: Path, etag: str) -> None:
    sent = iter([BODY[:1000], BODY])

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(with_headers(f"Content-Length: {len(BODY)}", f"ETag: {etag}") + next(sent))

    server.answer = answer
    assert download(server.url, path).read_bytes() == BODY
    assert not any(b"If-Range" in request for request in server.requests)


def test_a_slow_body_that_goes_on_is_not_given_up(server: Server, path: Path) -> None:
    """Slower than the connection's patience in all, but above the least rate throughout."""

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(OK)
        for start in range(0, len(BODY), len(BODY) // 8):
            connection.sendall(BODY[start : start + len(BODY) // 8])
            time.sleep(PATIENCE_S / 3)

    server.answer = answer
    assert download(server.url, path).read_bytes() == BODY
    assert len(server.requests) == 1
