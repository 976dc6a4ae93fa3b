"""An object store for benchmarks: files of a folder over HTTP/1.1, whole or a range of bytes.

`python -m benchmarks.store FOLDER PORT` serves until it is killed.
"""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    folder: ClassVar[Path]

    def do_GET(self) -> None:
        """Answer with a file, or with the bytes that the header `Range` names."""
        file = self.folder / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        wanted = self.headers.get("Range")
        with file.open("rb") as source:
            if wanted:
                first, last = map(int, wanted.removeprefix("bytes=").split("-"))
                content = os.pread(source.fileno(), last + 1 - first, first)
            else:
                content = source.read()
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    _Handler.folder = Path(sys.argv[1])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), _Handler).serve_forever()
