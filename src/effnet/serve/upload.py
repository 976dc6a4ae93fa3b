"""Photographs out of a request: files of a form, or base64 in JSON."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from effnet.data.decode import EncodedImage
from effnet.inference.images import NamedImage
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.plain import parse_json
from effnet.serve.admission import MOST_IMAGES, Held
from effnet.serve.refusal import Refusal
from effnet.serve.stack import (
    ClientDisconnect,
    MultiPartException,
    MultiPartParser,
    Request,
    UploadFile,
)

FIELD = "file"
"""the form's field with a photograph"""
_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*:")
_LONGEST_FIELD = 1 << 16  # bytes of a field that is no file
_END = b"--"
_HOW = f'send a form with files in the field {FIELD!r}, or JSON: {{"images": ["base64 of a file"]}}'


@dataclass(frozen=True)
class Upload:
    """A photograph as it was sent.

    Attributes:
        name: its file's name, or its place in a list.
        data: the file's content.
    """

    name: str
    data: bytes

    def image(self, max_pixels: int) -> NamedImage:
        """Return the photograph, which is decoded when it is opened; it may have `max_pixels` pixels."""
        return NamedImage(self.name, partial(EncodedImage, self.name, self.data, max_pixels))


async def uploads_of(
    request: Request, held: Held, *, max_bytes: int, timeout: float, executor: Executor
) -> list[Upload]:
    """Return the photographs of a request, at least one.

    Args:
        request: its body has not been read.
        held: counts its bytes.
        max_bytes: bytes that it may have.
        timeout: seconds in which it has to arrive.
        executor: runs what takes long.

    Raises:
        Refusal: it is too large, too slow, of another type, or malformed.
    """
    if (length := request.headers.get("content-length", "")).isdecimal() and int(length[:20]) > max_bytes:
        _too_large(max_bytes)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = _Body(request, held, max_bytes)
    try:
        async with asyncio.timeout(timeout):
            if kind == "multipart/form-data":
                return await _of_form(request, body)
            if kind == "application/json":
                data = b"".join([chunk async for chunk in body.chunks()])
                return await asyncio.get_running_loop().run_in_executor(executor, _of_json, data, max_bytes)
    except TimeoutError:
        reason = f"the request did not arrive within {timeout:g} s"
        raise Refusal(408, reason, {"connection": "close"}) from None
    except ClientDisconnect:
        raise Refusal(400, "the request ended early") from None
    raise Refusal(415, f"content type {one_line(kind, 60) or 'missing'}; {_HOW}")


def _too_large(max_bytes: int) -> NoReturn:
    raise Refusal(413, f"a request may have {max_bytes:,} bytes")


class _Body:
    """The body of a request, counted while it arrives.

    Attributes:
        tail: its last bytes.
    """

    def __init__(self, request: Request, held: Held, max_bytes: int) -> None:
        self.tail = b""
        self._request, self._held, self._max_bytes = request, held, max_bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield it in pieces, as they arrive.

        Raises:
            Refusal: it has too many bytes.
        """
        async for chunk in self._request.stream():
            self._held.add(len(chunk))
            if self._held.bytes > self._max_bytes:
                _too_large(self._max_bytes)
            self.tail = (self.tail + chunk)[-8:]
            yield chunk


class _InMemory(MultiPartParser):
    """Starlette's parser, which otherwise writes files of more than a megabyte to the disk."""

    spool_max_size = 1 << 62


async def _of_form(request: Request, body: _Body) -> list[Upload]:
    parser = _InMemory(
        request.headers,
        body.chunks(),  # type: ignore[arg-type]  # an iterator does
        max_files=MOST_IMAGES,
        max_fields=MOST_IMAGES,
        max_part_size=_LONGEST_FIELD,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        status = 413 if "Too many" in error.message else 400
        raise Refusal(status, f"malformed form: {one_line(error.message)}") from None
    except ValueError as error:  # of python-multipart
        raise Refusal(400, f"malformed form: {one_line(error)}") from None
    if not body.tail.rstrip().endswith(_END):
        raise Refusal(400, "malformed form: it ends early")
    files = [value for name, value in form.multi_items() if name == FIELD and isinstance(value, UploadFile)]
    if not files:
        raise Refusal(422, f"no file in the field {FIELD!r}; {_HOW}")
    return [Upload(file.filename or str(index), await file.read()) for index, file in enumerate(files)]


def _of_json(data: bytes, max_bytes: int) -> list[Upload]:
    try:
        value = parse_json(data, characters=max_bytes + 4096)
    except UserError as error:
        raise Refusal(400, str(error)) from None
    images = value.get("images") if isinstance(value, dict) and set(value) == {"images"} else None
    if not isinstance(images, list) or not images or not all(isinstance(image, str) for image in images):
        raise Refusal(422, _HOW)
    return [Upload(f"images[{index}]", _decoded(image, index)) for index, image in enumerate(images)]


def _decoded(text: str, index: int) -> bytes:
    if _URL.match(text):
        raise Refusal(422, f"images[{index}]: URLs are refused; send the file's content in base64")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise Refusal(422, f"images[{index}]: not base64") from None
