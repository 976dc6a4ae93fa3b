"""Formats of a table of predictions, one module each."""

from effnet.inference.predict.formats.table import FORMATS, format_of

__all__ = ["FORMATS", "format_of"]
