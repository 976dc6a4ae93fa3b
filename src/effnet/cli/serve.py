"""`effnet serve`."""

import argparse
import sys
from pathlib import Path

from effnet.cli.arguments import MOST_IMAGES, integer, number, path
from effnet.cli.choice import add_device_flags, add_engine_flag, add_image_size_flag, add_max_pixels_flag
from effnet.cli.flags import Commands, add_flags
from effnet.cli.messages import say

_DEFAULT_MODEL = "efficientnet-lite0"
_MIB = 1 << 20
_MOST_SECONDS = 3600.0


def add_serve(commands: Commands, prog: str | None) -> None:
    """Add `effnet serve`."""
    parser = commands.add_parser(
        "serve",
        prog=prog,
        help="classify photographs over HTTP",
        description="A page on which photographs are dropped, and POST /classify for programs. SIGHUP opens the "
        "models again, SIGTERM ends the server after its last answer; docs/serve.md.",
    )
    add = parser.add_argument
    add(
        "models",
        nargs="*",
        type=path,
        metavar="MODEL",
        help="weights, a run's folder, a file of effnet export, or a model's name; NAME=MODEL for another name in "
        f"requests, which say ?model=NAME for all but the first [default: {_DEFAULT_MODEL}]",
    )
    add(
        "--host",
        type=path,
        default="127.0.0.1",
        help="address to listen on [default: 127.0.0.1, this machine only]",
    )
    add(
        "--port",
        type=integer(0, 65_535),
        default=8000,
        metavar="N",
        help="port; 0 takes a free one, which is printed [default: 8000]",
    )
    _add_model_flags(parser)
    _add_limits(parser)
    add(
        "--max-batch",
        type=integer(1, MOST_IMAGES),
        default=8,
        metavar="IMAGES",
        help="images of different requests to compute together; 1 computes each alone [default: 8]",
    )
    add(
        "--max-wait-ms",
        type=number(60_000.0, low=0.0),
        default=5.0,
        metavar="MS",
        help="time that an image waits for others that are being decoded [default: 5]",
    )
    add(
        "--watch",
        type=number(_MOST_SECONDS),
        metavar="SECONDS",
        help="look so often at the models' files, and open those again that have changed",
    )
    add("--token-file", type=path, metavar="FILE", help="file with a secret that clients have to send")
    add(
        "--cors-origin",
        action="append",
        type=path,
        default=[],
        metavar="ORIGIN",
        help="address of pages that may ask from a browser, such as https://example.org; * for all; may be repeated",
    )
    parser.set_defaults(command=_serve)


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_engine_flag(parser)
    add_device_flags(parser)
    add("--precision", default="fp32", type=str.lower, choices=("fp32", "amp", "tf32", "fp16", "bf16"))
    add_image_size_flag(parser)
    add_flags(parser, ("tta",))
    add(
        "--unknown",
        action="store_true",
        help="tell images that look like none of the classes, by the rule that validation has chosen",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_max_pixels_flag(parser)
    add(
        "--max-mib",
        type=number(4096.0),
        default=32.0,
        metavar="MIB",
        help="refuse requests of more mebibytes [default: 32]",
    )
    add(
        "--timeout",
        type=number(_MOST_SECONDS),
        default=30.0,
        metavar="SECONDS",
        help="time in which a request has to arrive, and after that to be answered [default: 30]",
    )
    add(
        "--queue",
        type=integer(1, MOST_IMAGES),
        default=128,
        metavar="IMAGES",
        help="images that may wait; requests beyond them are refused [default: 128]",
    )


def _serve(namespace: argparse.Namespace) -> int:
    from effnet.serve.server import serve
    from effnet.serve.settings import ServeSettings, named_sources, read_token

    token = read_token(Path(namespace.token_file)) if namespace.token_file else None
    settings = ServeSettings(
        models=named_sources(namespace.models or [_DEFAULT_MODEL]),
        host=namespace.host,
        port=namespace.port,
        engine=namespace.engine,
        device=namespace.device,
        precision=namespace.precision,
        image_size=namespace.image_size,
        tta=getattr(namespace, "tta", "none"),
        unknown=namespace.unknown,
        max_pixels=namespace.max_pixels,
        max_bytes=int(namespace.max_mib * _MIB),
        timeout=namespace.timeout,
        queue=namespace.queue,
        max_batch=namespace.max_batch,
        max_wait=namespace.max_wait_ms / 1000,
        watch=namespace.watch,
        token=token,
        origins=tuple(namespace.cors_origin),
    )
    serve(settings, _tell)
    return 0


def _tell(address: str) -> None:
    say(f"effnet serve: {address} (Ctrl-C ends it)")
    sys.stdout.flush()
