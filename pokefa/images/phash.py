"""The perceptual hash of an image file: what a decoder does for stage 6."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pokefa.images.decoder import loads_first
from pokefa.images.files import flatten, open_image

# imagehash.phash makes the picture grey and this wide and high, and hashes its lowest 8 by 8 frequencies.
SIDE = 32
FREQUENCIES = 8

# Two hashes that differ in at most so many of 64 bits are of the same picture; strangers differ in about 32, and a
# threshold near that would make one group of everything.
THRESHOLD = 6
HIGHEST_THRESHOLD = 24

# A hash bit tells whether a frequency lies over the median of all 64, so half the bits are set, unless most
# frequencies are absent and tie. A plain colour sets at most 1 bit, and a picture that varies in one direction only,
# such as a gradient or stripes, at most 8: one row or column of the 8 by 8 frequencies.
FLAT_BITS = 8
# In grey levels of 255. Rounding to whole levels leaves about 0.1 in a plain picture, the blocks of a poor JPEG up to
# 0.5; the faintest pencil drawing has several. Bits made of less than this are noise.
FLAT_CONTRAST = 1.0

# The columns of images.csv by which near copies are found.
HASH_COLUMNS = ("phash64", "phash_contrast", "phash_variants", "sha256")

# Mirrored; turned by a quarter, a half and three quarters; and mirrored in the other three ways.
TURNS = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.TRANSVERSE,
)


@dataclass(frozen=True)
class Hashed:
    """What is recorded of an image: `variants` holds a hash for each of TURNS, joined by spaces, or None."""

    phash: str
    contrast: float
    variants: str | None


def shrink(source: Path | bytes) -> Image.Image:
    """Return all that the hash sees of an image: SIDE by SIDE grey pixels, upright, alpha laid on white.

    Args:
        source: the image file, or its bytes.

    Raises:
        ImageError: it cannot be opened.
    """
    return flatten(open_image(source)).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def phash_of(small: Image.Image) -> str:
    """Return the 64-bit perceptual hash of a shrunken image as 16 hex digits; that of the whole image is the same."""
    import imagehash

    return str(imagehash.phash(small))


def contrast_of(small: Image.Image) -> float:
    """Return by how many of 255 grey levels a shrunken image varies in the frequencies of the hash, to two decimals.

    That is the standard deviation of the picture made of these frequencies alone, which by Parseval's theorem is the
    root of the sum of their squares, but for the mean, divided by the side.
    """
    import numpy as np
    from scipy.fft import dctn

    lowest = dctn(np.asarray(small, np.float64), norm="ortho")[:FREQUENCIES, :FREQUENCIES]
    lowest[0, 0] = 0
    return round(float(np.sqrt((lowest**2).sum())) / SIDE, 2)


def load_libraries() -> None:
    """Load what `hash_file` will need."""
    import imagehash  # noqa: F401
    from scipy.fft import dctn  # noqa: F401


@loads_first(load_libraries)
def hash_file(source: Path | bytes, *, with_variants: bool = False) -> Hashed:
    """Return what is recorded of an image file, or of its bytes.

    Raises:
        ImageError: it cannot be opened.
    """
    small = shrink(source)
    turned = " ".join(phash_of(small.transpose(turn)) for turn in TURNS) if with_variants else None
    return Hashed(phash_of(small), contrast_of(small), turned)


@dataclass(frozen=True)
class Hash:
    """The perceptual hash of a picture, as preprocess/dup/phash.py makes it: 16 hex digits, and its contrast."""

    phash: str
    contrast: float | None


def is_flat(hashed: Hash) -> bool:
    """Tell whether a hash says nothing, because the picture is nearly plain: any other plain picture has the same."""
    little = hashed.contrast is not None and hashed.contrast < FLAT_CONTRAST
    return little or int(hashed.phash, 16).bit_count() <= FLAT_BITS
