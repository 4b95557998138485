"""From the bytes of a file to the picture in its new size.

Plain JPEGs and PNGs are decoded by libvips straight into packed pixels; pokefa.images opens everything else. What gets
larger goes through Pillow, what gets smaller through libvips (bicubic, antialiased) or OpenCV (the mean over an area):
each is the fastest of the three at its part, see benchmarks/resize.py.
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

# A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size where that leaves at least so many times the target: the result
# then differs from that of full decoding by a PSNR of at least 40 dB for drawings, and of at least 29 dB for noise and
# for line art a few pixels wide; nearer to the target than twice, line art falls to 25 dB.
DECODED_AT_LEAST = 2

_PREMULTIPLIED = {"RGBA": "RGBa", "LA": "La"}  # a small a: Pillow's modes of colours multiplied by alpha


def resized_image(data: bytes, form: str, size: tuple[int, int], target: Target) -> Image.Image | np.ndarray:
    """Return the picture in a file, whose upright size is `size`, in the size of `target`.

    It is an image (RGB, RGBA, L or LA), or where none had to be made the pixels alone: (H, W, 3) or (H, W) uint8.

    Raises:
        ImageError: the file is damaged.
    """
    by = reduction(*size, target)
    if target.action == "down" and (plain := open_plain(data, form, by)) is not None:
        try:
            return _make_smaller(plain, target)
        except load_vips().Error:
            pass  # it is for open_image to say what a damaged file is worth
    return resample(open_image(data, max_bytes=len(data), reduce=by), target)


def reduction(width: int, height: int, target: Target) -> int:
    """Return 8, 4, 2 or 1: how many times smaller a JPEG of `width` x `height` is decoded on its way to `target`.

    What is decoded has at least twice the target's sides. The result then has a PSNR of at least 40 dB against full
    decoding for drawings, and of 29 dB for noise and line art.
    """
    fits = (by for by in (8, 4, 2) if not (width % by or height % by) and target.factor * by * DECODED_AT_LEAST <= 1)
    return next(fits, 1)


def open_plain(data: bytes, form: str, by: int = 1) -> VipsImage | None:
    """Return a JPEG or PNG that `open_image` would only decode, as RGB or grey at 8 bits, to be decoded as it is used.

    None stands for all that is not so plain: other formats, alpha, a colour profile, orientation. A file that libvips
    cannot read without a warning raises `pyvips.Error`, here or while it is decoded.

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
    """Return the image (RGB, RGBA, L or LA) in its new size, as `resized_image`; hidden colours do not bleed."""
    import numpy as np

    if target.action == "up":
        return image.resize(target.size, Image.Resampling.BICUBIC)
    # What is multiplied by alpha has no colour where nothing is seen.
    pixels = np.asarray(image.convert(_PREMULTIPLIED[image.mode]) if image.mode in _PREMULTIPLIED else image)
    return _make_smaller(load_vips().Image.new_from_array(pixels), target)


def _make_smaller(image: VipsImage, target: Target) -> Image.Image | np.ndarray:
    """Return an image of 1 to 4 bands of 8 bits in its new size; of 2 or 4 the last is an alpha that is multiplied in.

    The alpha is taken out again, which makes an image; 1 or 3 bands are returned as pixels.

    Raises:
        pyvips.Error: the image cannot be decoded.
    """
    width, height = target.size
    if target.kernel == "area":
        small = _mean_of_area(image.numpy(), target.size)
    else:  # as wide as the factor makes it: antialiased
        small = image.reduce(image.width / width, image.height / height, kernel="cubic").numpy()
    if image.bands in (1, 3):
        return small
    mode = "La" if image.bands == 2 else "RGBa"
    return as_image(small, mode).convert(mode.upper())


def as_image(picture: Image.Image | np.ndarray, mode: str | None = None) -> Image.Image:
    """Return an image as it is, and (H, W) or (H, W, C) uint8 pixels as one of `mode`, by default of L or RGB."""
    if isinstance(picture, Image.Image):
        return picture
    mode = mode or ("L" if picture.ndim == 2 else "RGB")
    image = Image.new(mode, (picture.shape[1], picture.shape[0]), None)  # Image.fromarray fills it with black first
    image.frombytes(picture)
    return image


def _mean_of_area(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) or (H, W, C) uint8 pixels made smaller: each is the mean of the area that it covers.

    Pixels that are covered in part count in part. Pillow's BOX counts them whole or not at all, which makes thin lines
    uneven.
    """
    import cv2

    cv2.setNumThreads(1)  # the pool has a process for each core
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def load_vips() -> ModuleType:
    os.environ["VIPS_CONCURRENCY"] = "1"  # read at the first import: the pool has a process for each core
    import pyvips

    logging.getLogger("pyvips").setLevel("CRITICAL")  # what it warns of is left to open_image
    pyvips.cache_set_max(0)  # it would hold on to the pictures of earlier files
    return pyvips
