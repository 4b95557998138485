"""The perceptual hash of an image file, computed in a decoder for stage 6."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pokefa.images.decoder import loads_first
from pokefa.images.files import flatten, open_image

# imagehash.phash converts the image to grey, resizes it to this side, and hashes its lowest 8 by 8 frequencies.
SIDE = 32
FREQUENCIES = 8

# Hashes that differ in at most THRESHOLD of 64 bits are of the same image. Unrelated images differ in about 32, and a
# threshold near that would put everything into one group.
THRESHOLD = 6
HIGHEST_THRESHOLD = 24

# A hash bit tells whether a frequency is over the median of all 64, so half the bits are set, unless most frequencies
# are absent and tie. A plain colour sets at most 1 bit. An image that varies in one direction only, such as a gradient
# or stripes, sets at most 8: one row or column of the 8 by 8 frequencies.
FLAT_BITS = 8
# In grey levels of 255. Rounding leaves about 0.1 in a plain image, the blocks of a poor JPEG up to 0.5; the faintest
# pencil drawing has several. Below this, the hash bits are noise.
FLAT_CONTRAST = 1.0

# The columns of images.csv that are needed to find near-duplicates.
HASH_COLUMNS = ("phash64", "phash_contrast", "phash_variants", "sha256")

# Mirrored; rotated by 90, 180 and 270 degrees; and mirrored in the other three ways.
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
    """The recorded hashes of an image; `variants` has a hash for each of TURNS, joined by spaces, or is None."""

    phash: str
    contrast: float
    variants: str | None


def shrink(source: Path | bytes) -> Image.Image:
    """Return an image as input of the hash: SIDE by SIDE grey pixels, upright, composited on white.

    Args:
        source: the image file, or its bytes.

    Raises:
        ImageError: it cannot be opened.
    """
    return flatten(open_image(source)).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def phash_of(small: Image.Image) -> str:
    """Return the 64-bit perceptual hash of a shrunken image as 16 hex digits, which is also that of the original."""
    import imagehash

    return str(imagehash.phash(small))


def contrast_of(small: Image.Image) -> float:
    """Return the contrast of a shrunken image in the frequencies of the hash, in grey levels of 255, to two decimals.

    It is the standard deviation of the image made of these frequencies only: by Parseval's theorem, the root of the sum
    of their squares without the mean, divided by the side.
    """
    import numpy as np
    from scipy.fft import dctn

    lowest = dctn(np.asarray(small, np.float64), norm="ortho")[:FREQUENCIES, :FREQUENCIES]
    lowest[0, 0] = 0
    return round(float(np.sqrt((lowest**2).sum())) / SIDE, 2)


def load_libraries() -> None:
    """Load the libraries of `hash_file`."""
    import imagehash  # noqa: F401
    from scipy.fft import dctn  # noqa: F401


@loads_first(load_libraries)
def hash_file(source: Path | bytes, *, with_variants: bool = False) -> Hashed:
    """Return the recorded hashes of an image file, or of its bytes.

    Raises:
        ImageError: it cannot be opened.
    """
    small = shrink(source)
    turned = " ".join(phash_of(small.transpose(turn)) for turn in TURNS) if with_variants else None
    return Hashed(phash_of(small), contrast_of(small), turned)


@dataclass(frozen=True)
class Hash:
    """The perceptual hash of an image as recorded by preprocess/dup/phash.py: 16 hex digits, and the contrast."""

    phash: str
    contrast: float | None


def is_flat(hashed: Hash) -> bool:
    """Tell whether a hash is not meaningful because the image is nearly plain: all plain images share it."""
    little = hashed.contrast is not None and hashed.contrast < FLAT_CONTRAST
    return little or int(hashed.phash, 16).bit_count() <= FLAT_BITS
