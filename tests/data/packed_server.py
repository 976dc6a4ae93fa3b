"""An HTTP server of a folder, with range requests or without, that can be told to fail now and then."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class Server(ThreadingHTTPServer):
    """Counts requests; `failures` are statuses to answer with first, one a request."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that leaves early is no error."""

    def __init__(self, root: Path, *, ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root, self.ranges = root, ranges
        self.failures: list[int] = []
        self.requests: list[tuple[str, str | None]] = []
        self.connections: set[tuple[str, int]] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        with self.server.lock:
            self.server.requests.append((self.path, wanted))
            self.server.connections.add(self.client_address)
            failure = self.server.failures.pop(0) if self.server.failures else None
        if failure:
            self._answer(failure, b"try again")
            return
        path = urlsplit(self.path).path
        if path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", path.removeprefix("/moved"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        file = self.server.root / path.lstrip("/")
        if not file.is_file():
            self._answer(404, b"")
            return
        content = file.read_bytes()
        if wanted and self.server.ranges:
            first, last = wanted.removeprefix("bytes=").split("-")
            self._answer(206, content[int(first) : int(last) + 1])
        else:
            self._answer(200, content)

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving(root: Path, *, ranges: bool = True) -> Iterator[Server]:
    """A server of `root` in a thread."""
    with Server(root, ranges=ranges) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
