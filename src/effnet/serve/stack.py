"""Starlette, uvicorn, h11 and python-multipart, of the extra `serve`: the one module that imports them."""

from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command

try:
    import h11
    import python_multipart  # noqa: F401 (Starlette needs it for forms)
    from starlette.applications import Starlette
    from starlette.datastructures import Headers, MutableHeaders, UploadFile
    from starlette.exceptions import HTTPException
    from starlette.formparsers import MultiPartException, MultiPartParser
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from uvicorn import Config, Server
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise UserError(
        f"effnet serve needs {error.name}, which is not installed: {install_command('serve')}"
    ) from None

__all__ = [
    "ASGIApp",
    "CORSMiddleware",
    "ClientDisconnect",
    "Config",
    "H11Protocol",
    "HTTPException",
    "Headers",
    "Message",
    "Middleware",
    "MultiPartException",
    "MultiPartParser",
    "MutableHeaders",
    "Receive",
    "Request",
    "Response",
    "Route",
    "Scope",
    "Send",
    "Server",
    "Starlette",
    "UploadFile",
    "h11",
]
