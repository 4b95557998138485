"""Writing PNG files with one filter for all rows, and zlib-ng, which is several times faster than zlib.

The filter is the better of two for a sample of the rows: Up for flat colours, Average for grain. At level 3 the files
are as large as those of Pillow at level 6, which tries all filters on each row and uses zlib: see benchmarks/resize.py.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np

_MODES = ("L", "LA", "RGB", "RGBA")
# PNG, third edition, table 8: the colour type by the number of channels: grey, grey and alpha, RGB, RGB and alpha.
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Both store differences: Up to the row above, Average to the mean of the pixels above and on the left.
_UP, _AVERAGE = 2, 3
_SAMPLE_ROWS = 32
_STRIP_BYTES = 2**18  # bytes filtered at a time, which fit in the processor's cache


def encode_png(picture: Image.Image | np.ndarray, level: int) -> bytes:
    """Return an image encoded as PNG, without metadata.

    Args:
        picture: an image of mode L, LA, RGB or RGBA, or its pixels: (H, W) or (H, W, C) uint8 with 1 to 4 channels.
        level: compression level of zlib-ng, 1 to 9.

    Raises:
        ValueError: the image has another mode.
    """
    import numpy as np
    from zlib_ng import zlib_ng

    if isinstance(picture, Image.Image) and picture.mode not in _MODES:
        raise ValueError(f"cannot write a PNG of mode {picture.mode}")
    values = np.asarray(picture)
    height, width = values.shape[:2]
    channels = values.size // (height * width)
    pixels = np.zeros((height + 1, width * channels), np.uint8)  # the row above the first is zero
    pixels[1:] = values.reshape(height, -1)
    sample = np.linspace(0, height - 1, min(height, _SAMPLE_ROWS), dtype=int)
    name = min(
        (_UP, _AVERAGE),
        key=lambda name: len(zlib_ng.compress(_filtered(name, pixels[sample + 1], pixels[sample], channels), level)),
    )
    compressor = zlib_ng.compressobj(level)
    strip = max(1, _STRIP_BYTES // pixels.shape[1])
    packed = [
        compressor.compress(_filtered(name, pixels[top + 1 : top + 1 + strip], pixels[top : top + strip], channels))
        for top in range(0, height, strip)
    ]
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b"".join((*packed, compressor.flush()))), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
        for name, data in chunks
    )


def _filtered(name: int, rows: np.ndarray, above: np.ndarray, channels: int) -> np.ndarray:
    """Return filtered rows, each after the filter's number; `above` may be one row longer."""
    import numpy as np

    above = above[: len(rows)]
    result = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    result[:, 0] = name
    if name == _UP:
        np.subtract(rows, above, out=result[:, 1:])  # modulo 256, as in the format
        return result
    left = np.zeros_like(rows)
    left[:, channels:] = rows[:, :-channels]
    mean = (left & above) + ((left ^ above) >> 1)  # avoids the ninth bit of the sum
    np.subtract(rows, mean, out=result[:, 1:])
    return result
