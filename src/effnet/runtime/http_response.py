"""An answer of an HTTP server whose headers, and whose single parts of a body, end in size and in time."""

import http.client
import io
import socket
import time
from typing import Any

PATIENCE_S = 30.0
"""seconds for a connection, for all headers together, and for each part of a body"""
_HEADERS = 1 << 20  # bytes of all headers, and of whatever else stands between the parts of a body


class Response(http.client.HTTPResponse):
    """A response that raises an error where `http.client` would wait, or read, without end.

    The body is to be read by `read1`.
    """

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self._source = _Source(sock)
        self.fp = io.BufferedReader(self._source)

    def begin(self) -> None:
        """Read the status and the headers, those of interim answers included."""
        self._source.allow(_HEADERS)
        super().begin()

    def read1(self, n: int = -1) -> bytes:
        """Read a part of the body, of at most `n` bytes."""
        self._source.allow(_HEADERS + max(n, 0))
        return super().read1(n)


class _Source(io.RawIOBase):
    """The bytes of a socket, of which a number is allowed in a time."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._socket = sock
        self._bytes = sock.makefile("rb", buffering=0)
        self.allow(_HEADERS)

    def allow(self, size: int) -> None:
        """Allow so many bytes more, in `PATIENCE_S` from now."""
        self._left = size
        self._end = time.monotonic() + PATIENCE_S

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """See `io.RawIOBase`.

        Raises:
            TimeoutError: the time is over.
            http.client.HTTPException: more bytes than allowed.
        """
        if self._left <= 0:
            raise http.client.HTTPException("the headers have no end")
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the server takes too long to answer")
        self._socket.settimeout(remaining)
        count = self._bytes.readinto(buffer)
        self._left -= count or 0
        return count

    def close(self) -> None:
        """See `io.RawIOBase`."""
        self._bytes.close()
        super().close()
