"""From the bytes of an image file to the resized file: the work of a decoder for stage 4.

The resized file has the format of its source if that is JPEG, PNG or WebP. GIF, BMP and TIFF become PNG, which is
lossless. AVIF becomes WebP, which is also lossy and supports alpha.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from pokefa.images.decoder import loads_first
from pokefa.images.files import check_image, needs_conversion, open_image, read_file, strip_ballast
from pokefa.images.formats import FORMATS
from preprocess.resize.metadata import strip_metadata
from preprocess.resize.png import encode_png
from preprocess.resize.policy import Bounds, Target, target_size
from preprocess.resize.resampling import as_image, load_vips, resized_image

if TYPE_CHECKING:
    import numpy as np

# JPEG: at 95 the loss is invisible, and 4:4:4 keeps the edges of line art clean. WebP: method 4 takes less than half
# the time of method 6, for 10 % more bytes. PNG: level 3 of zlib-ng takes a fifth of the time of Pillow's level 6, for
# the same number of bytes; benchmarks/resize.py measures this.
ENCODERS: dict[str, dict[str, int | str]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "WEBP": {"quality": 95, "method": 4},
}
PNG_LEVEL = 3


def load_libraries() -> None:
    """Load the libraries of `make_file`."""
    import cv2  # noqa: F401
    import numpy  # noqa: F401
    from zlib_ng import zlib_ng  # noqa: F401

    load_vips()


@loads_first(load_libraries)
def make_file(source: Path | bytes, max_bytes: int, bounds: Bounds) -> tuple[bytes | None, str, Target, str]:
    """Return the bytes of the resized file (None = the source), its format, its target and the reason slug.

    The slug is `up` or `down`; for an image of the same size `kept`, `stripped`, or why it was converted.

    Raises:
        ImageError: the source cannot be opened.
    """
    data = read_file(source, max_bytes)
    facts = check_image(data, decode=False, max_bytes=len(data))
    form = FORMATS[facts.format].resized_as
    target = target_size(facts.width, facts.height, bounds)
    if target.action == "keep":
        made, reason = keep_size(data, form)
    else:
        size = (facts.width, facts.height)
        made, reason = encode(resized_image(strip_ballast(data), facts.format, size, target), form), target.action
    return made, form, target, reason


def keep_size(data: bytes, form: str) -> tuple[bytes | None, str]:
    """Return the bytes of an image that keeps its size (None = `data` itself), and the reason slug.

    Args:
        form: the format of the resized file.

    Raises:
        ImageError: the image is damaged.
    """
    reason = needs_conversion(data, max_bytes=len(data))
    if reason is None:
        try:
            stripped = strip_metadata(data)
        except ValueError:
            reason = "odd_structure"
        else:
            check_image(data, max_bytes=len(data))
            return (None, "kept") if stripped == data else (stripped, "stripped")
    return encode(open_image(data, max_bytes=len(data)), form), reason


def encode(picture: Image.Image | np.ndarray, form: str) -> bytes:
    """Return an image from `resized_image` encoded as `form`, without metadata."""
    if form == "PNG":
        return encode_png(picture, PNG_LEVEL)
    stream = io.BytesIO()
    as_image(picture).save(stream, form, **ENCODERS[form])
    return stream.getvalue()
