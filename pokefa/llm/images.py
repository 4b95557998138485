"""Scales images to the size that the model sees, so that nothing is sent that the server would only scale down."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from pokefa.images.decoding import in_decoder, readable
from pokefa.images.files import flatten, open_image
from pokefa.llm.models import UNKNOWN_MOST_PATCHES, UNKNOWN_PATCH, ModelFacts

JPEG_QUALITY = 90
LOW_SIDE = 512  # with detail "low" the model sees the image within a square of this side in pixels

Detail = Literal["high", "low", "auto"]
DETAILS: tuple[Detail, ...] = ("high", "low", "auto")


@dataclass(frozen=True)
class View:
    """How much detail of an image a model sees.

    Args:
        facts: the model's, for its maximum size.
        detail: the API's detail level.
        max_side: downscale so that the longer side is at most this many pixels; None = the model's maximum.
    """

    facts: ModelFacts | None = None
    detail: Detail = "high"
    max_side: int | None = None

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height in which an image is sent."""
        sides = [self.max_side] if self.max_side else []
        sides += [LOW_SIDE] if self.detail == "low" else []
        scale = min([1.0, *(side / max(width, height) for side in sides)])
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        if self.facts is None:
            return fit_patches(width, height, UNKNOWN_PATCH, UNKNOWN_MOST_PATCHES)
        return fit_patches(width, height, self.facts.patch, self.facts.most_patches)


def load_picture(path: Path, view: View) -> tuple[bytes, tuple[int, int]]:
    """Return an image file as the JPEG that is sent, and its (width, height).

    Raises:
        ImageError: the file cannot be opened.
    """
    return in_decoder(make_jpeg, readable(path), view)


def make_jpeg(source: Path | bytes, view: View) -> tuple[bytes, tuple[int, int]]:
    """Return the same as `load_picture` for a file or its bytes; called in the decoding process.

    Raises:
        ImageError: the file cannot be opened.
    """
    image = flatten(open_image(source))
    return encode_jpeg(image, view), view.size(*image.size)


def encode_jpeg(image: Image.Image, view: View = View()) -> bytes:
    """Return an RGB image as JPEG, scaled down to what the model sees."""
    size = view.size(*image.size)
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def fit_patches(width: int, height: int, patch: int, most: int) -> tuple[int, int]:
    """Return the size, in proportion, at which at most `most` squares of side `patch` cover the image.

    The rule is from OpenAI's guide to images: scale to the area of the squares, then down to whole squares on the side
    that this shortens more.
    """
    if math.ceil(width / patch) * math.ceil(height / patch) <= most:
        return width, height
    scale = min(1.0, math.sqrt(patch * patch * most / (width * height)))
    columns, rows = width * scale / patch, height * scale / patch
    scale *= min(max(math.floor(columns), 1) / columns, max(math.floor(rows), 1) / rows, 1.0)
    # An image thinner than one square can still be too long: its length is limited and its proportions change.
    longest = patch * most
    return min(max(1, math.floor(width * scale)), longest), min(max(1, math.floor(height * scale)), longest)
