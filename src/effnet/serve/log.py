"""The server's log: one JSON object per line on standard error."""

import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from effnet.runtime.text import to_json

_LOGGERS = ("effnet", "uvicorn")


def fields(**values: object) -> dict[str, Any]:
    """Return the argument `extra` of a logging call, which adds values to its line."""
    return {"fields": values}


class JsonLines(logging.Formatter):
    """Formats a record as a JSON object: time, level, event, and the values of `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return to_json(line)


@contextmanager
def json_log() -> Iterator[None]:
    """Write the messages of this package and of uvicorn as JSON within the block."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    for logger, level in zip(loggers, (logging.INFO, logging.WARNING), strict=True):
        logger.addHandler(handler)
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
