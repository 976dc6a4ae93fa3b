"""The HTTP client against a server in this process; TLS is tested with the downloads."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from effnet.runtime.errors import UserError
from effnet.runtime.http import REDIRECTIONS, HttpClient, RefusedError

BODY = bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def setup(self) -> None:
        self.server.connections += 1
        super().setup()

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers.items())))
        name = self.path.rpartition("/")[2]
        if name.startswith("moved"):
            count = int(name.removeprefix("moved"))
            self.answer(302, b"elsewhere", Location=f"/a b/moved{count - 1}" if count > 1 else "/file")
        elif name.isdigit():
            self.answer(int(name), b"no")
        elif name == "file" and (wanted := self.headers.get("Range")):
            start, stop = map(int, wanted.removeprefix("bytes=").split("-"))
            self.answer(206, BODY[start : stop + 1])
        else:  # `all`: a server that answers no ranges
            self.answer(200, BODY)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    connections = 0

    def __init__(self) -> None:
        super().__init__(("localhost", 0), Handler)
        self.requests: list[tuple[str, dict[str, str]]] = []

    def url(self, name: str) -> str:
        return f"http://localhost:{self.server_port}/{name}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def test_the_connection_is_kept(server: Server) -> None:
    with HttpClient() as client:
        assert client.get(server.url("file"), 100, 300) == BODY[100:300]
        assert client.get(server.url("moved2"), 5, 6) == BODY[5:6]
        assert client.get(server.url("file")) == BODY
        with pytest.raises(RefusedError):
            client.get(server.url("404"))
    assert server.connections == 1
    assert [path for path, _ in server.requests] == [
        *("/file", "/moved2", "/a%20b/moved1", "/file", "/file", "/404")
    ]
    assert {headers["User-Agent"] for _, headers in server.requests} == {"effnet"}


def test_redirections_end(server: Server) -> None:
    with HttpClient() as client:
        assert client.get(server.url(f"moved{REDIRECTIONS}")) == BODY
        with pytest.raises(UserError, match=f"localhost: more than {REDIRECTIONS} redirections"):
            client.get(server.url(f"moved{REDIRECTIONS + 1}"))


@pytest.mark.parametrize("status", [404, 403, 501])
def test_answers_that_stay(server: Server, status: int) -> None:
    with HttpClient() as client, pytest.raises(RefusedError, match=f"the server answers {status} "):
        client.get(server.url(str(status)))


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_answers_that_may_change(server: Server, status: int) -> None:
    with HttpClient() as client, pytest.raises(OSError, match=f"the server answers {status} ") as caught:
        client.get(server.url(str(status)))
    assert not isinstance(caught.value, RefusedError)


def test_a_server_without_ranges_is_refused_and_the_client_goes_on(server: Server) -> None:
    with HttpClient() as client:
        with pytest.raises(RefusedError, match="no range requests"):
            client.get(server.url("all"), 0, 10)
        assert client.get(server.url("all")) == BODY
    assert server.connections == 2  # the rest of the file is not read


def test_only_https(server: Server) -> None:
    with HttpClient(https_only=True) as client, pytest.raises(UserError, match="only https"):
        client.get(server.url("file"))
    assert server.requests == []


def test_a_proxy_with_a_login(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:se%40cret@localhost:{server.server_port}")
    with HttpClient() as client:
        assert client.get("http://images.example/set/file") == BODY
    ((path, headers),) = server.requests
    assert path == "http://images.example/set/file"
    assert headers["Host"] == "images.example"
    assert headers["Proxy-Authorization"] == "Basic bWU6c2VAY3JldA=="  # me:se@cret
