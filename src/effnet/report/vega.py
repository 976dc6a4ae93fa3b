"""Vega-Lite, which draws the charts: the one module that imports vl-convert, which brings its JavaScript along."""

import functools
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from effnet.report.charts import LIGHT, Chart, config
from effnet.runtime.cache import cache_dir
from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command
from effnet.runtime.files import write_text

_WIDTH, _HEIGHT = 640, 320
_SCALE = 2  # pixels of a PNG for each of the drawing

NOTICE = """\
Vega and Vega-Lite: Copyright (c) 2015-2023 University of Washington Interactive Data Lab. All rights reserved.
vega-embed, vega-tooltip: Copyright (c) 2015-2023 University of Washington Interactive Data Lab, and contributors.
Redistribution and use in source and binary forms, with or without modification, are permitted under the BSD 3-Clause
license: https://opensource.org/license/bsd-3-clause. THIS SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND.
D3: Copyright 2010-2023 Mike Bostock, ISC license: https://opensource.org/license/isc-license-txt."""
"""the authors of the JavaScript, for the page that holds it"""


@functools.cache
def javascript() -> str:
    """Return the JavaScript that draws charts in a browser, as text for a script element.

    vl-convert puts it together in seconds, so it is kept in the cache.

    Raises:
        UserError: vl-convert is not installed.
    """
    library = _library()
    kept = cache_dir() / f"vega-{library.__version__}.js"
    try:
        return kept.read_text(encoding="utf-8")
    except OSError:
        pass
    # Within a function, as its names are short and many; a script element ends at the letters that are escaped.
    text = f"(() => {{{library.javascript_bundle()}}})();"
    text = text.replace("</script", "<\\/script").replace("<!--", "<\\!--").replace("\r", "")
    with suppress(OSError, UserError):  # a cache that can't be written
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, text)
    return text


def drawn(chart: Chart, kind: str) -> bytes:
    """Return a chart as a picture in light colours.

    Args:
        chart: the chart.
        kind: `svg` or `png`.

    Raises:
        UserError: vl-convert is not installed.
    """
    library, spec = _library(), still(chart)
    if kind == "svg":
        return str(library.vegalite_to_svg(spec)).encode()
    picture: bytes = library.vegalite_to_png(spec, scale=_SCALE)
    return picture


def still(chart: Chart) -> dict[str, Any]:
    """Return a chart's whole specification, for a picture that nobody points at."""
    spec: dict[str, Any] = json.loads(json.dumps(chart.spec))
    if "layer" in spec:
        spec["layer"] = [layer for layer in spec["layer"] if "params" not in layer]
    colours: Mapping[str, Any] = {**config(LIGHT), "background": "#ffffff", "font": "sans-serif"}
    return {
        **spec,
        "title": chart.title,
        "width": _WIDTH,
        "height": _HEIGHT,
        "data": {"values": chart.rows()},
        "config": colours,
    }


def _library() -> Any:
    try:
        import vl_convert
    except ImportError:
        raise UserError(f"a report needs vl-convert: {install_command('report')}") from None
    return vl_convert
