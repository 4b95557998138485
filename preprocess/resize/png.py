"""Writing PNG files: one filter for all rows, and zlib-ng, which compresses several times faster than zlib.

The filter is the better of two on a sample of the rows: Up for flat colours, Average for grain. At level 3 the files
are as large as those of Pillow at level 6, which tries all filters on each row and uses zlib: see benchmarks/resize.py.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    import numpy as np

# PNG, third edition, table 8: the colour type of each mode, and its channels.
_COLOUR_TYPES = {"L": (0, 1), "RGB": (2, 3), "LA": (4, 2), "RGBA": (6, 4)}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Each leaves a difference: Up that to the row above, Average that to the mean of the pixels above and on the left.
_UP, _AVERAGE = 2, 3
_SAMPLE_ROWS = 32
_STRIP_BYTES = 2**18  # so much is filtered at a time: it stays in the processor's cache


def encode_png(image: Image.Image, level: int) -> bytes:
    """Return the PNG file of an image of mode L, LA, RGB or RGBA, without metadata.

    Args:
        level: of zlib-ng, 1 to 9.

    Raises:
        ValueError: the image has another mode.
    """
    import numpy as np
    from zlib_ng import zlib_ng

    if image.mode not in _COLOUR_TYPES:
        raise ValueError(f"no PNG of mode {image.mode} is written here")
    colour_type, channels = _COLOUR_TYPES[image.mode]
    pixels = np.zeros((image.height + 1, image.width * channels), np.uint8)  # above the first row stand zeros
    pixels[1:] = np.asarray(image).reshape(image.height, -1)
    sample = np.linspace(0, image.height - 1, min(image.height, _SAMPLE_ROWS), dtype=int)
    name = min(
        (_UP, _AVERAGE),
        key=lambda name: len(zlib_ng.compress(_filtered(name, pixels[sample + 1], pixels[sample], channels), level)),
    )
    compressor = zlib_ng.compressobj(level)
    strip = max(1, _STRIP_BYTES // pixels.shape[1])
    packed = [
        compressor.compress(_filtered(name, pixels[top + 1 : top + 1 + strip], pixels[top : top + strip], channels))
        for top in range(0, image.height, strip)
    ]
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b"".join((*packed, compressor.flush()))), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
        for name, data in chunks
    )


def _filtered(name: int, rows: np.ndarray, above: np.ndarray, channels: int) -> np.ndarray:
    """Return rows of bytes as the format stores them, the filter's number first; `above` may be one row longer."""
    import numpy as np

    above = above[: len(rows)]
    result = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    result[:, 0] = name
    if name == _UP:
        np.subtract(rows, above, out=result[:, 1:])  # modulo 256, as the format has it
        return result
    left = np.zeros_like(rows)
    left[:, channels:] = rows[:, :-channels]
    mean = (left & above) + ((left ^ above) >> 1)  # without the ninth bit that the sum would need
    np.subtract(rows, mean, out=result[:, 1:])
    return result
