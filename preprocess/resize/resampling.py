"""From the bytes of a file to the resized image.

libvips decodes plain JPEGs and PNGs directly to packed pixels; pokefa.images opens everything else. Pillow enlarges.
libvips (bicubic, antialiased) or OpenCV (the mean over an area) reduces. Each is the fastest of the three for its part:
see benchmarks/resize.py.
"""

from __future__ import annotations

import logging
import os
from types import ModuleType
from typing import TYPE_CHECKING

from PIL import Image

from pokefa.images.files import needs_conversion, open_image
from preprocess.resize.policy import Target

if TYPE_CHECKING:
    import numpy as np
    from pyvips import Image as VipsImage

# A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size if that is at least this many times the target. The PSNR against
# full decoding is then at least 40 dB for drawings, and 29 dB for noise and for line art a few pixels wide. With a
# factor under 2, line art falls to 25 dB.
DECODED_AT_LEAST = 2

_PREMULTIPLIED = {"RGBA": "RGBa", "LA": "La"}  # a lower-case a: Pillow's modes with premultiplied alpha


def resized_image(data: bytes, form: str, size: tuple[int, int], target: Target) -> Image.Image | np.ndarray:
    """Return the image in a file, whose upright size is `size`, in the size of `target`.

    The result is an image (RGB, RGBA, L or LA), or its pixels only: (H, W, 3) or (H, W) uint8.

    Raises:
        ImageError: the file is damaged.
    """
    by = reduction(*size, target)
    if target.action == "down" and (plain := open_plain(data, form, by)) is not None:
        try:
            return _make_smaller(plain, target)
        except load_vips().Error:
            pass  # open_image decides about damaged files
    return resample(open_image(data, max_bytes=len(data), reduce=by), target)


def reduction(width: int, height: int, target: Target) -> int:
    """Return 8, 4, 2 or 1: the reduction at which a JPEG of `width` x `height` is decoded for `target`.

    The decoded image has at least DECODED_AT_LEAST times the target's sides.
    """
    fits = (by for by in (8, 4, 2) if not (width % by or height % by) and target.factor * by * DECODED_AT_LEAST <= 1)
    return next(fits, 1)


def open_plain(data: bytes, form: str, by: int = 1) -> VipsImage | None:
    """Return a JPEG or PNG that needs only decoding, as RGB or grey at 8 bits, decoded lazily.

    Return None for anything else: other formats, alpha, a colour profile, orientation. A file that libvips cannot read
    without a warning raises `pyvips.Error`, here or while it is decoded.

    Args:
        by: 2, 4 or 8 decodes a JPEG at that fraction of its size.

    Raises:
        ImageError: the file cannot be opened.
    """
    if form not in ("JPEG", "PNG") or needs_conversion(data, max_bytes=len(data)) is not None:
        return None
    vips = load_vips()
    try:
        if form == "JPEG":
            image = vips.Image.jpegload_buffer(data, shrink=by, access="sequential", fail_on="warning")
        else:
            image = vips.Image.pngload_buffer(data, access="sequential", fail_on="warning")
    except vips.Error:
        return None
    return image if image.format == "uchar" and image.bands in (1, 3) else None


def resample(image: Image.Image, target: Target) -> Image.Image | np.ndarray:
    """Return the image (RGB, RGBA, L or LA) in its new size, like `resized_image`; hidden colours do not bleed."""
    import numpy as np

    if target.action == "up":
        return image.resize(target.size, Image.Resampling.BICUBIC)
    # Premultiplied, transparent pixels have no colour.
    pixels = np.asarray(image.convert(_PREMULTIPLIED[image.mode]) if image.mode in _PREMULTIPLIED else image)
    return _make_smaller(load_vips().Image.new_from_array(pixels), target)


def _make_smaller(image: VipsImage, target: Target) -> Image.Image | np.ndarray:
    """Return an image of 1 to 4 bands of 8 bits, reduced; with 2 or 4 bands, the last is premultiplied alpha.

    With alpha the result is an image, no longer premultiplied; 1 or 3 bands are returned as pixels.

    Raises:
        pyvips.Error: the image cannot be decoded.
    """
    width, height = target.size
    if target.kernel == "area":
        small = _mean_of_area(image.numpy(), target.size)
    else:  # the kernel widens with the factor: antialiased
        small = image.reduce(image.width / width, image.height / height, kernel="cubic").numpy()
    if image.bands in (1, 3):
        return small
    mode = "La" if image.bands == 2 else "RGBa"
    return as_image(small, mode).convert(mode.upper())


def as_image(picture: Image.Image | np.ndarray, mode: str | None = None) -> Image.Image:
    """Return an image unchanged, and (H, W) or (H, W, C) uint8 pixels as an image of `mode`, by default L or RGB."""
    if isinstance(picture, Image.Image):
        return picture
    mode = mode or ("L" if picture.ndim == 2 else "RGB")
    image = Image.new(mode, (picture.shape[1], picture.shape[0]), None)  # Image.fromarray fills it with black first
    image.frombytes(picture)
    return image


def _mean_of_area(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) or (H, W, C) uint8 pixels reduced: each is the mean of the area that it covers.

    Partly covered pixels count in part. Pillow's BOX counts them fully or not at all, which makes thin lines uneven.
    """
    import cv2

    cv2.setNumThreads(1)  # the pool has a process for each core
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def load_vips() -> ModuleType:
    os.environ["VIPS_CONCURRENCY"] = "1"  # read at the first import: the pool has a process for each core
    import pyvips

    logging.getLogger("pyvips").setLevel("CRITICAL")  # open_image reports its warnings
    pyvips.cache_set_max(0)  # it would keep earlier images in memory
    return pyvips
