"""Small pictures for the pages, created in a decoding process."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pokefa.errors import ImageError
from pokefa.files import locate
from pokefa.images.decoding import in_decoder
from pokefa.images.files import check_image, flatten, open_image, read_file

# -- of the report ----------------------------------------------------------------------------------------------------

JPEG_QUALITY = 72

# A picture with this longer side in pixels shows colours and no content.
VEILED_SIDE = 8


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG; if the file cannot be opened, `uri` is empty and `problem` says why."""

    uri: str = ""
    width: int = 0
    height: int = 0
    problem: str = ""


def thumbnail(root: Path, path: str, side: int, *, veiled: bool = False) -> Thumbnail:
    """Return the image at a path of the ledger as an RGB JPEG of at most `side` pixels in width and height.

    Args:
        veiled: reduce it to a few blocks of colour, so that the page does not contain the picture itself.
    """
    try:
        return in_decoder(make_thumbnail, locate(root, path), side, veiled)
    except ImageError as error:
        return Thumbnail(problem=error.slug)


def make_thumbnail(path: Path, side: int, veiled: bool) -> Thumbnail:
    """Return `thumbnail` of a file.

    Raises:
        ImageError: it cannot be opened.
    """
    image = flatten(open_image(path))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    if veiled:
        size = image.size
        image.thumbnail((VEILED_SIDE, VEILED_SIDE), Image.Resampling.BOX)
        image = image.resize(size, Image.Resampling.NEAREST)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/jpeg;base64,{encoded}", image.width, image.height)


# -- of the review pages ----------------------------------------------------------------------------------------------

# Enough to recognize a drawing, in 2 to 5 kB: a page of 5,000 has 15 to 30 MB. For details the page opens the file
# itself.
SIDE = 176
QUALITY = 50

# A JPEG is decoded at a fraction of its size if at least this many pixels remain per pixel of the small picture.
LEAST_OVERSAMPLING = 2

# Prefix of an error message in place of base64: there is no picture.
PROBLEM = "!"


def small_picture(root: Path, path: str) -> str:
    """Return an image as the base64 of an RGB WebP of at most SIDE pixels, or `!` and the error."""
    try:
        return in_decoder(make_small_picture, locate(root, path))
    except ImageError as error:
        return PROBLEM + error.slug


def make_small_picture(path: Path) -> str:
    """Return `small_picture` of a file.

    Raises:
        ImageError: it cannot be opened.
    """
    data = read_file(path)
    facts = check_image(data, decode=False)
    longer = max(facts.width, facts.height)
    reduce = next((by for by in (8, 4, 2) if longer // by >= LEAST_OVERSAMPLING * SIDE), 1)
    image = flatten(open_image(data, reduce=reduce))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(stream.getvalue()).decode("ascii")
