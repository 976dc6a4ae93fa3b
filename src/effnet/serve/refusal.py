"""Requests that are not answered as asked."""

from collections.abc import Mapping


class Refusal(Exception):  # noqa: N818 (the client's error, not the server's)
    """A request is refused.

    Args:
        status: HTTP's status code.
        reason: one line for the client.
        headers: further headers of the response.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})


def busy(reason: str) -> Refusal:
    """Return the refusal of a request that may be sent again in a second."""
    return Refusal(429, f"{reason}; send it again later", {"retry-after": "1"})
