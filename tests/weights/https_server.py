"""A local https server that stands in for a publisher, and misbehaves on request."""

import contextlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme


@dataclass
class Served:
    """A file on the server and how the server misbehaves with it."""

    body: bytes
    etag: str | None = '"v1"'
    sends_length: bool = True
    ranges_off_by: int = 0
    redirect: str | None = None
    redirect_headers: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    """bytes after which to close the connection, for one request each"""
    gate: threading.Event | None = None
    """to wait for in the middle of the body"""


@dataclass
class Publisher:
    """The server: its files, and what it was asked for."""

    address: str
    files: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Range header) of each request"""

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


@contextlib.contextmanager
def serve(certificate: Path) -> Iterator[Publisher]:
    """Serve until the end of the block; the authority to trust is written to `certificate`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                _answer(self, publisher)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    publisher = Publisher(f"https://localhost:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield publisher
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(handler: BaseHTTPRequestHandler, publisher: Publisher) -> None:
    name = handler.path.lstrip("/")
    asked = handler.headers.get("Range")
    publisher.requests.append((name, asked))
    served = publisher.files.get(name)
    if served is None:
        handler.send_error(404)
    elif served.redirect:
        handler.send_response(302)
        for key, value in {"Location": served.redirect, **served.redirect_headers}.items():
            handler.send_header(key, value)
        handler.end_headers()
    else:
        holds = served.etag is not None and handler.headers.get("If-Range") == served.etag
        _send(handler, served, int(asked.removeprefix("bytes=").rstrip("-")) if asked and holds else 0)


def _send(handler: BaseHTTPRequestHandler, served: Served, start: int) -> None:
    size = len(served.body)
    if start >= size:
        handler.send_error(416)
        return
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start + served.ranges_off_by}-{size - 1}/{size}")
    if served.etag:
        handler.send_header("ETag", served.etag)
    if served.sends_length:
        handler.send_header("Content-Length", str(size - start))
    handler.end_headers()
    body = served.body[start:]
    body = body[: served.cuts.pop(0)] if served.cuts else body
    half = len(body) // 2
    handler.wfile.write(body[:half])
    if served.gate:
        served.gate.wait(60)
    handler.wfile.write(body[half:])
