"""Writing PNG files: one filter for all rows, and zlib-ng, which compresses several times faster than zlib.

At level 6 the files are as large as those of Pillow at level 6, which tries all filters on each row and uses zlib: see
benchmarks/resize.py.
"""

from __future__ import annotations

import struct
import zlib

from PIL import Image

# PNG, third edition, table 8: the colour type of each mode, and its channels.
_COLOUR_TYPES = {"L": (0, 1), "RGB": (2, 3), "LA": (4, 2), "RGBA": (6, 4)}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2  # the filter that leaves the difference to the row above: the smallest of the fixed ones for drawings


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
    pixels = np.asarray(image).reshape(image.height, image.width * channels)
    rows = np.empty((image.height, 1 + pixels.shape[1]), np.uint8)
    rows[:, 0] = _UP
    rows[:, 1:] = pixels
    rows[1:, 1:] -= pixels[:-1]  # modulo 256, as the format has it
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib_ng.compress(rows.data, level)), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))
        for name, data in chunks
    )
