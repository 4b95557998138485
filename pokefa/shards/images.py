"""An image as it stands in a shard: what a decoder does for packing."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pokefa.errors import ImageError
from pokefa.images.files import Facts, check_image, flatten, open_image
from pokefa.images.formats import KEPT_FORMATS, SUFFIXES

# Pillow's own default of 75 is visible on line art; WebP at its default method is as small and four times as fast as
# at the slowest.
SAVING: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"quality": 95},
}
FORMAT_OF = {SUFFIXES[name]: name for name in KEPT_FORMATS}


@dataclass(frozen=True)
class Encoding:
    """How images stand in the shards, and how closely they are looked at before.

    Args:
        format: `keep` for the files as they are, or `jpg`, `png` or `webp` for all of them in one format.
        max_side: pixels; an image with a longer side is made smaller.
        decode: every image is decoded to its end; otherwise of those that are packed as they are only the header is
            read, and damage behind it passes.
    """

    format: str = "keep"
    max_side: int | None = None
    decode: bool = True

    @property
    def keeps(self) -> bool:
        """Whether every file is packed byte for byte."""
        return self.format == "keep" and self.max_side is None


def prepare(exported: bytes, encoding: Encoding) -> tuple[Facts, bytes | None]:
    """Return the facts about an image as it is packed, and its bytes; None where they are those of the exported file.

    Raises:
        ImageError: it is damaged, or of a format that no shard holds.
    """
    seen = check_image(exported, decode=encoding.decode)
    content = encode(exported, seen, encoding)
    if content is not exported:
        return check_image(content, decode=False), content
    if seen.format not in KEPT_FORMATS:
        raise ImageError("unsupported_format", f"no shard holds {seen.format}: run resize.py, or use --image-format")
    return seen, None


def encode(exported: bytes, seen: Facts, encoding: Encoding) -> bytes:
    """Return the image as `encoding` asks; the same bytes where it is so already."""
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
