"""A probe: how many JPEG files a core decodes in a second.

python -m effnet.doctor.decoding
"""

import io
import time
from collections.abc import Callable

from effnet.doctor.probe import Reporter, described

WIDTH, HEIGHT = 500, 375
"""the usual size of ImageNet's photographs"""
_SECONDS = 0.4


def main() -> None:
    """Report ``rate`` of simplejpeg and of Pillow, in images a second, or an ``error``."""
    reporter = Reporter()
    try:
        from PIL import Image

        data = _photograph()
    except Exception as error:
        reporter.report("pillow", error=described(error))
        return
    reporter.report("pillow", rate=_rate(lambda: Image.open(io.BytesIO(data)).convert("RGB")))
    try:
        import simplejpeg  # type: ignore[import-untyped]
    except Exception as error:
        reporter.report("simplejpeg", error=described(error))
        return
    reporter.report("simplejpeg", rate=_rate(lambda: simplejpeg.decode_jpeg(data, "RGB")))


def _photograph() -> bytes:
    """Return a JPEG of soft shapes with some noise, of as many bytes as a photograph of its size."""
    from PIL import Image

    size = WIDTH, HEIGHT
    soft = [Image.effect_noise((20, 15), 120).resize(size, Image.Resampling.BICUBIC) for _ in range(3)]
    bands = [Image.blend(band, Image.effect_noise(size, 40), 0.25) for band in soft]
    encoded = io.BytesIO()
    Image.merge("RGB", bands).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def _rate(decode: Callable[[], object]) -> float:
    decode()
    start, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - start) < _SECONDS:
        decode()
        count += 1
    return count / passed


if __name__ == "__main__":
    main()
