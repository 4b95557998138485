"""Prepares an image for a shard, in a decoding process."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pokefa.errors import ImageError
from pokefa.images.files import Facts, check_image, flatten, open_image
from pokefa.images.formats import KEPT_FORMATS, SUFFIXES

# Pillow's default of 75 is visible on line art; WebP's default method is as small as the slowest one and four times as
# fast.
SAVING: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"quality": 95},
}
FORMAT_OF = {SUFFIXES[name]: name for name in KEPT_FORMATS}


@dataclass(frozen=True)
class Encoding:
    """How images are stored in the shards, and how thoroughly they are checked first.

    Args:
        format: `keep` for the files as they are, or `jpg`, `png` or `webp` for all of them in one format.
        max_side: pixels; an image with a longer side is scaled down.
        decode: decode every image completely. Otherwise only the header of an image packed unchanged is read, and
            damage after it goes unnoticed.
    """

    format: str = "keep"
    max_side: int | None = None
    decode: bool = True

    @property
    def keeps(self) -> bool:
        """Whether every file is packed byte for byte."""
        return self.format == "keep" and self.max_side is None


def prepare(exported: bytes, encoding: Encoding) -> tuple[Facts, bytes | None]:
    """Return the facts about the packed image, and its bytes; None if they equal those of the exported file.

    Raises:
        ImageError: it is damaged, or its format is not allowed in shards.
    """
    seen = check_image(exported, decode=encoding.decode)
    content = encode(exported, seen, encoding)
    if content is not exported:
        return check_image(content, decode=False), content
    if seen.format not in KEPT_FORMATS:
        raise ImageError("unsupported_format", f"no shard holds {seen.format}: run resize.py, or use --image-format")
    return seen, None


def encode(exported: bytes, seen: Facts, encoding: Encoding) -> bytes:
    """Return the image encoded as `encoding` requires; the same bytes if it fits already."""
    name = seen.format if encoding.format == "keep" else FORMAT_OF[encoding.format]
    longer = max(seen.width, seen.height)
    side = min(longer, encoding.max_side or longer)
    if (name, side) == (seen.format, longer):
        return exported
    image = open_image(exported)
    if name == "JPEG" and image.mode != "L":
        image = flatten(image)  # JPEG has no alpha
    if side < longer:
        size = (max(1, round(image.width * side / longer)), max(1, round(image.height * side / longer)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, name, **SAVING[name])
    return stream.getvalue()
