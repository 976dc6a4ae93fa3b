"""HTTP(S) GET requests: one client for downloads and for data sets that are read over the network.

A server is not trusted to end: neither its headers, nor its body, nor the time that either takes.
"""

import base64
import http.client
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from effnet.runtime.errors import UserError
from effnet.runtime.http_response import PATIENCE_S, Response

REDIRECTIONS = 10
SLOWEST = 1024
"""bytes a second; a body that comes more slowly over `PATIENCE_S` is given up"""
MOST_IN_MEMORY = 1 << 29
"""bytes of a file that is read as a whole"""
_CHUNK = 1 << 16
_DISCARDED = 1 << 16  # bytes that are read to keep a connection
_ADDRESS = "%/:=&?~#+!$,;'@()*[]"
_MOVED = {301, 302, 303, 307, 308}
_TRANSIENT = {408, 429, 500, 502, 503, 504}
_HEADERS = {"User-Agent": "effnet", "Accept-Encoding": "identity"}

NETWORK_ERRORS = (OSError, http.client.HTTPException)
"""errors that a request raises if the network or the server fails"""

Redirected = Callable[[str, Mapping[str, str]], None]
"""is called with the new address and the headers of the answer before a redirection is followed"""


class RefusedError(OSError):
    """An answer that another attempt will not change."""


class HttpClient:
    """Requests over one connection, which is kept as long as the host stays the same. For one thread.

    Proxies are those of the environment (`https_proxy`, `no_proxy`), authorities those of the system or of
    `SSL_CERT_FILE`.

    Args:
        https_only: refuse other addresses, those of redirections included.
        redirected: is called before each redirection is followed.
    """

    def __init__(self, *, https_only: bool = False, redirected: Redirected | None = None) -> None:
        self._https_only = https_only
        self._redirected = redirected
        self._connection: http.client.HTTPConnection | None = None
        self._host: tuple[str, str] | None = None
        self._prefix = ""
        self._proxy: dict[str, str] = {}

    def __enter__(self) -> "HttpClient":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def open(self, url: str, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
        """Send a request and follow redirections; the body is left to be read.

        Args:
            url: address, with `http` or `https`.
            headers: headers beside those that every request has.

        Returns:
            The response, whatever its status.

        Raises:
            UserError: an address that is not https where only that is allowed, or too many redirections.
            RefusedError: an answer that makes no sense, such as a malformed length.
            OSError: the network failed, as does `http.client.HTTPException`; see `NETWORK_ERRORS`.
        """
        for _ in range(REDIRECTIONS + 1):
            if self._https_only:
                require_https(url)
            response = self._answer(url, headers or {})
            location = response.getheader("Location")
            if response.status not in _MOVED or location is None:
                return response
            url = _joined(url, location)
            if self._redirected is not None:
                self._redirected(url, dict(response.headers.items()))
            self._discard(response)
        raise UserError(f"{urlsplit(url).hostname}: more than {REDIRECTIONS} redirections")

    def get(self, url: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return bytes `start` to `stop` of a file, the latter excluded; the whole file if `stop` is None.

        Raises:
            UserError: as for `open`.
            RefusedError: an answer that another attempt will not change.
            OSError: the network or the server failed; another attempt may help.
        """
        is_part = stop is not None
        response = self.open(url, {"Range": f"bytes={start}-{stop - 1}"} if stop is not None else None)
        if is_part and response.status == HTTPStatus.OK:  # the whole file: do not wait for it
            self.close()
            raise RefusedError("the server answers no range requests, which reading a part of a file needs")
        if response.status == (HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK):
            return self._whole(response, MOST_IN_MEMORY if stop is None else stop - start)
        self._discard(response)
        reason = f"the server answers {describe(response)}"
        raise OSError(reason) if response.status in _TRANSIENT else RefusedError(reason)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answer(self, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        try:
            target = urlsplit(url)
            path = (target.path or "/") + (f"?{target.query}" if target.query else "")
            connection = self._connected(target.scheme, target.netloc)
            connection.request("GET", self._prefix + path, headers={**_HEADERS, **self._proxy, **headers})
            response = connection.getresponse()
            _check_length(response)
        except NETWORK_ERRORS:
            self.close()  # in an unknown state
            raise
        except ValueError:  # of urlsplit, of a host's name, of an empty host
            self.close()
            raise RefusedError(f"{url} is no address that can be asked") from None
        return response

    def _whole(self, response: http.client.HTTPResponse, most: int) -> bytes:
        """Read a body to its end; the connection can be used again."""
        try:
            return b"".join(body(response, most))
        except NETWORK_ERRORS:
            self.close()
            raise

    def _discard(self, response: http.client.HTTPResponse) -> None:
        """Read a short body, so that the connection can be used again; close the connection instead of a long one."""
        with suppress(*NETWORK_ERRORS):
            self._whole(response, _DISCARDED)

    def _connected(self, scheme: str, host: str) -> http.client.HTTPConnection:
        if self._connection is None or self._host != (scheme, host):
            self.close()
            self._connect(scheme, host)
            self._host = (scheme, host)
        assert self._connection is not None
        return self._connection

    def _connect(self, scheme: str, host: str) -> None:
        """Set the connection to a host, through the proxy that the environment names, and what requests begin with."""
        proxy = "" if proxy_bypass(host) else getproxies().get(scheme, "")
        login, _, through = urlsplit(proxy).netloc.rpartition("@")
        authorization = _basic(login) if login else {}
        self._prefix, self._proxy = "", {}
        connection: http.client.HTTPConnection
        if scheme == "http":
            connection = http.client.HTTPConnection(through or host, timeout=PATIENCE_S)
            if proxy:
                self._prefix, self._proxy = f"http://{host}", authorization
        elif scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(through or host, timeout=PATIENCE_S, context=context)
            if proxy:
                connection.set_tunnel(host, headers=authorization)
        else:
            raise RefusedError(f"{scheme}: is no scheme that is read; only http and https are")
        connection.response_class = Response
        self._connection = connection


def body(response: http.client.HTTPResponse, most: int) -> Iterator[bytes]:
    """Yield the body of a response in parts.

    Args:
        response: whose body has not been read.
        most: bytes that it may have.

    Raises:
        RefusedError: it is longer.
        TimeoutError: it comes more slowly than `SLOWEST`.
        ConnectionError: it is shorter than its header says.
        http.client.HTTPException: it is malformed.
    """
    received, waited, since = 0, 0.0, 0
    asked = time.monotonic()
    while part := response.read1(_CHUNK):
        received += len(part)
        if received > most:
            raise RefusedError(f"the server sends more than the {most} bytes that were expected")
        waited += time.monotonic() - asked
        if waited > PATIENCE_S:
            if received - since < SLOWEST * waited:
                raise TimeoutError(f"the server sends less than {SLOWEST} bytes a second")
            waited, since = 0.0, received
        yield part
        asked = time.monotonic()
    if response.length:
        raise ConnectionError(f"the connection ended {response.length} bytes early")
    response.close()  # so that the connection can be used again


def require_https(url: str) -> None:
    """Refuse an address that is not https.

    Raises:
        UserError: naming the address.
    """
    if urlsplit(url).scheme != "https":
        raise UserError(f"{url}: only https addresses are downloaded from")


def describe(response: http.client.HTTPResponse) -> str:
    """Return the status of a response as text, such as `404 Not Found`."""
    return f"{response.status} {http.client.responses.get(response.status, '')}".rstrip()


def reason(error: Exception) -> str:
    """Return the reason of a `NETWORK_ERRORS` as printable text of one line; it may quote what a server has sent."""
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
        return "the server does not answer in HTTP"
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _joined(url: str, location: str) -> str:
    """Return the address of a redirection; what has no place in an address is escaped."""
    try:
        return urljoin(url, quote(location.encode("latin-1"), safe=_ADDRESS))
    except ValueError:
        raise RefusedError("the server redirects to something that is no address") from None


def _check_length(response: http.client.HTTPResponse) -> None:
    """Refuse a length that is no number, or that is stated twice: where the body ends is then a matter of taste."""
    stated = response.headers.get_all("Content-Length") or []
    if len(set(stated)) > 1 or any(re.fullmatch("[0-9]{1,18}", length) is None for length in stated):
        raise RefusedError(f"the server states the length {', '.join(stated)[:40]!a}")


def _basic(login: str) -> dict[str, str]:
    return {"Proxy-Authorization": f"Basic {base64.b64encode(unquote(login).encode()).decode()}"}
