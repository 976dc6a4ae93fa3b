"""HTTP(S) GET requests: one client for downloads and for data sets that are read over the network."""

import base64
import http.client
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from effnet.runtime.errors import UserError

TIMEOUT_S = 30
REDIRECTIONS = 10
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
            OSError: the network failed, as does `http.client.HTTPException`; see `NETWORK_ERRORS`.
        """
        for _ in range(REDIRECTIONS + 1):
            if self._https_only:
                require_https(url)
            response = self._answer(url, headers or {})
            location = response.getheader("Location")
            if response.status not in _MOVED or location is None:
                return response
            url = urljoin(url, location).replace(" ", "%20")
            if self._redirected is not None:
                self._redirected(url, dict(response.headers.items()))
            self._finish(response)
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
        data = self._finish(response)
        if response.status == (HTTPStatus.PARTIAL_CONTENT if is_part else HTTPStatus.OK):
            return data
        reason = f"the server answers {describe(response)}"
        raise OSError(reason) if response.status in _TRANSIENT else RefusedError(reason)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answer(self, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        target = urlsplit(url)
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        try:
            connection = self._connected(target.scheme, target.netloc)
            connection.request("GET", self._prefix + path, headers={**_HEADERS, **self._proxy, **headers})
            return connection.getresponse()
        except NETWORK_ERRORS:
            self.close()  # in an unknown state
            raise

    def _finish(self, response: http.client.HTTPResponse) -> bytes:
        """Read the rest of a body, so that the connection can be used again."""
        try:
            return response.read()
        except NETWORK_ERRORS:
            self.close()
            raise

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
        if scheme == "http":
            self._connection = http.client.HTTPConnection(through or host, timeout=TIMEOUT_S)
            if proxy:
                self._prefix, self._proxy = f"http://{host}", authorization
            return
        connection = http.client.HTTPSConnection(
            through or host, timeout=TIMEOUT_S, context=ssl.create_default_context()
        )
        if proxy:
            connection.set_tunnel(host, headers=authorization)
        self._connection = connection


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


def _basic(login: str) -> dict[str, str]:
    return {"Proxy-Authorization": f"Basic {base64.b64encode(unquote(login).encode()).decode()}"}
