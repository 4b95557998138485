"""Opening untrusted images: capped, upright, in sRGB, first frame, with a slug for every failure.

Stages open images only with `open_image`. It returns the mode "RGB", "RGBA", "L" or "LA" at 8 bits per channel;
`flatten` converts it to RGB for a model. `check_image` returns format and size without a conversion. `needs_conversion`
tells whether other programs would show the file differently.

These functions run in the calling process. For untrusted files, call them through
`pokefa.images.decoding.in_decoder`, which can end a decode.
"""

from __future__ import annotations

import io
import itertools
import os
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

# AVIF, TIFF and WebP plugins are imported because Pillow would otherwise load all of its plugins to find one.
from PIL import (
    AvifImagePlugin,
    ExifTags,
    Image,
    ImageChops,
    ImageCms,
    ImageOps,
    PngImagePlugin,
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,
)

from pokefa.errors import ImageError as ImageError
from pokefa.images import memory
from pokefa.images.formats import FORMATS, KEPT_FORMATS, recognise
from pokefa.images.structure import MAX_PROFILE, PNG_SIGNATURE, Caps, may_be_turned, webp_size, without_ballast

MAX_BYTES = 50 * 2**20
MAX_PIXELS = 100_000_000

Result = TypeVar("Result")

_WHITE = (255, 255, 255)
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_THIRTY_TWO_BIT_MODES = ("I", "F")  # of a TIFF; the file does not say what its numbers mean
_TURNED = (2, 3, 4, 5, 6, 7, 8)  # the EXIF orientations that are not upright
_ON_THEIR_SIDE = (5, 6, 7, 8)  # the EXIF orientations that swap width and height
_PNG_BIT_DEPTH = 24  # its offset: signature, then length, name, width and height of the IHDR chunk
# A profile that moves colours by no more than this makes no visible difference. The many sRGB profiles in use differ
# from each other by one or two levels of rounding.
_SAME_COLOUR_LEVELS = 2


# Some builds of Pillow lack the libraries of these two.
_BUILT = {"AVIF": AvifImagePlugin.SUPPORTED, "WEBP": WebPImagePlugin.SUPPORTED}

# Decoders run in parallel, so each uses one core.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# A profile may be as long as in a JPEG; `without_ballast` removes texts over Pillow's own limit.
PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE

# The caps of this process, which `pokefa.images.decoding` sets.
caps = Caps()


def open_image(
    source: Path | bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    reduce: int = 1,
) -> Image.Image:
    """Return the decoded first frame of a file: upright, in sRGB, 8 bits per channel.

    The result has mode RGB or RGBA, or L or LA for grey images. 16-bit samples keep the upper 8 bits; grey is rounded.
    An embedded colour profile is applied if it fits the image, and CMYK without one is inverted. Palettes and
    transparent colours are resolved, except the transparent colour of a 16-bit PNG, which becomes opaque. Metadata is
    removed; `image.format` is the file's format.

    Args:
        reduce: 2, 4 or 8 decodes a JPEG at that fraction of its width and height, in less time. It must divide both,
            so that the smaller image shows exactly the same area. Other formats are decoded at full size.

    Raises:
        ImageError: the file is missing, over a cap, of an unsupported format, or damaged.
    """

    def convert(opened: Image.Image, orientation: int) -> Image.Image:
        if reduce > 1:
            opened.draft(opened.mode, (opened.width // reduce, opened.height // reduce))
        opened.load()
        if orientation == 1:
            # Pillow's public functions that detach an image from its file, such as exif_transpose, copy all pixels.
            return _to_srgb(opened._new(opened.im))
        return _to_srgb(ImageOps.exif_transpose(opened))

    image, name = _open(read_file(source, max_bytes), max_pixels, convert)
    image.format = name
    image.info = {}
    return image


@dataclass(frozen=True)
class Facts:
    """A file's format, and its width and height in pixels after EXIF orientation."""

    format: str
    width: int
    height: int


def check_image(
    source: Path | bytes,
    *,
    decode: bool = True,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> Facts:
    """Return the facts about an image; `decode` also reads all of its first frame.

    A JPEG is then decoded at an eighth of its size: all coded data are still read, and only the inverse transform,
    which cannot fail, is smaller.

    Raises:
        ImageError: as `open_image`; without `decode`, damage after the header is not detected.
    """

    def facts(opened: Image.Image, orientation: int) -> tuple[int, int]:
        width, height = opened.size
        if decode:
            opened.draft(opened.mode, (1, 1))
            opened.load()
        return (height, width) if orientation in _ON_THEIR_SIDE else (width, height)

    (width, height), name = _open(read_file(source, max_bytes), max_pixels, facts)
    return Facts(name, width, height)


def needs_conversion(
    source: Path | bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
) -> str | None:
    """Return why other programs may show the file differently from `open_image`, or None.

    The reason is `format` for any format but JPEG, PNG and WebP, else `animated`, `rotated`, `cmyk`, `sixteen_bit` or
    `profile`. A palette, grey, an alpha channel or a profile that keeps sRGB colours is not a reason.

    Raises:
        ImageError: as `open_image`; the pixels are not decoded, so damage in them is not detected.
    """
    data = read_file(source, max_bytes)

    def reason(opened: Image.Image, orientation: int) -> str | None:
        if opened.format not in KEPT_FORMATS:
            return "format"
        if getattr(opened, "is_animated", False):
            return "animated"
        if orientation != 1:
            return "rotated"
        if opened.mode == "CMYK":
            return "cmyk"
        if data.startswith(PNG_SIGNATURE) and data[_PNG_BIT_DEPTH] == 16:
            return "sixteen_bit"
        return "profile" if _profile_moves_colours(opened) else None

    return _open(data, max_pixels, reason)[0]


def strip_ballast(data: bytes) -> bytes:
    """Return the parts of an image file that a decoder needs: see `pokefa.images.structure.without_ballast`.

    Raises:
        ImageError: the file has too many parts.
    """
    return without_ballast(recognise(data), data, caps)


def to_png(image: Image.Image, level: int = -1) -> bytes:
    """Return an image encoded as PNG; `level` is zlib's compression level, and -1 its default."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=level)
    return stream.getvalue()


def flatten(image: Image.Image) -> Image.Image:
    """Return the image as RGB, composited on white."""
    if image.mode == "RGB":
        return image
    if "A" not in image.mode:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    ground = Image.new("RGB", image.size, _WHITE)
    ground.paste(rgba, mask=rgba.getchannel("A"))
    return ground


def read_file(source: Path | bytes, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the bytes of a file, or of `source` itself.

    Raises:
        ImageError: `missing_file`, `empty_file` or `too_many_bytes`.
    """
    if isinstance(source, bytes):
        data = source
    else:
        try:
            data = _read(source, max_bytes)
        except OSError as error:
            raise ImageError("missing_file", f"{source.name}: {error.strerror or error}") from None
    if not data:
        raise ImageError("empty_file", "0 bytes")
    if len(data) > max_bytes:
        raise ImageError("too_many_bytes", f"over {max_bytes} bytes")
    return data


def _read(source: Path, max_bytes: int) -> bytes:
    """Return the bytes of a file, at most one more than the cap, without waiting for a pipe."""
    if not isinstance(source, Path):  # an fsspec path, not a local file
        with source.open("rb") as remote:
            return remote.read(max_bytes + 1)
    with os.fdopen(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        facts = os.fstat(stream.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError("not a regular file")
        return stream.read(max_bytes + 1 if facts.st_size > max_bytes else -1)


def _open(data: bytes, max_pixels: int, use: Callable[[Image.Image, int], Result]) -> tuple[Result, str]:
    """Return the result of `use` for an opened image and its orientation, and the name of the image's format.

    The pixels are not loaded before `use` runs.

    Raises:
        ImageError: the bytes are not an image, of an unsupported format, over a cap, or damaged.
    """
    name = recognise(data)
    if name is None:
        raise ImageError("not_an_image", "the bytes match no known image format")
    if name not in FORMATS or not _BUILT.get(name, True):
        raise ImageError("unsupported_format", f"{name} is not supported" + " by this Pillow" * (name in FORMATS))
    lean = without_ballast(name, data, caps)
    if name == "WEBP":  # libwebp allocates memory for all pixels when it opens a file
        _admit(name, *webp_size(lean), max_pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own bomb warning and EXIF warnings: the caps decide
        try:
            opened = Image.open(io.BytesIO(lean), formats=[name])
        except Image.DecompressionBombError as error:
            raise ImageError("too_many_pixels", str(error)) from None
        except MemoryError:
            raise _out_of_memory() from None
        except Exception:
            raise ImageError("truncated", f"begins as {name}, but cannot be decoded") from None
        with opened:
            _admit(name, *opened.size, max_pixels)
            if name == "TIFF" and opened.mode in _THIRTY_TWO_BIT_MODES:
                raise ImageError("unsupported_format", "TIFF with 32 bits per sample is not supported")
            try:
                return use(opened, _orientation(opened, lean)), name
            except MemoryError:
                raise _out_of_memory() from None
            except Exception as error:
                raise ImageError("truncated", f"{type(error).__name__}: {error}") from None


def _admit(name: str, width: int, height: int, max_pixels: int) -> None:
    """Check that an image may be decoded.

    Raises:
        ImageError: it has more than `max_pixels`.
        NeedsMemory: this process is a decoder, and the image needs more than its allowance.
    """
    if width * height > max_pixels:
        raise ImageError("too_many_pixels", f"{width}x{height} is over {max_pixels} pixels")
    memory.admit(width * height * FORMATS[name].pixel_bytes)


def _out_of_memory() -> ImageError:
    return ImageError("decode_memory", "decoding needs more memory than is available")


def _orientation(opened: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation of an opened file with the bytes `data`: 2 to 8, or 1 (upright) otherwise."""
    # Pillow rotates a TIFF itself. To find the EXIF of a PNG it decodes the pixels, which may come first.
    if opened.format == "TIFF" or (opened.format == "PNG" and not may_be_turned(data)):
        return 1
    found = opened.getexif().get(ExifTags.Base.Orientation)
    return found if found in _TURNED else 1


def _to_srgb(image: Image.Image) -> Image.Image:
    """Return the image in RGB, RGBA, L or LA at 8 bits per channel, through its colour profile if it has one."""
    profile = image.info.get("icc_profile")
    if image.mode in _SIXTEEN_BIT_MODES:
        image = image.convert("I").point(lambda value: value * (255 / 65535) + 0.5).convert("L")
    elif image.mode in ("1", "L"):
        image = image.convert("LA" if "transparency" in image.info else "L")
    elif image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if profile:
        image = _through_profile(image, profile)
    return image if image.mode in ("RGB", "RGBA", "L", "LA") else image.convert("RGB")


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """Return the image converted to sRGB, or unchanged if the profile is damaged or of another colour space."""
    alpha = image.getchannel("A") if "A" in image.mode else None
    colours = image.convert(image.mode.rstrip("A")) if alpha is not None else image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    assert converted is not None  # None only if the image is converted in place
    if colours.mode == "L":
        converted = converted.convert("L")
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _profile_moves_colours(image: Image.Image) -> bool:
    """Tell whether the embedded profile makes a visible difference to any of a range of colours."""
    profile = image.info.get("icc_profile")
    if not profile:
        return False
    if image.mode in ("1", "L", "LA", *_SIXTEEN_BIT_MODES):
        sample = Image.linear_gradient("L")
    else:
        colours = itertools.product(range(0, 256, 17), repeat=3)
        sample = Image.frombytes("RGB", (16, 256), bytes(itertools.chain.from_iterable(colours)))
    moved = ImageChops.difference(_through_profile(sample, profile), sample)
    return max(moved.tobytes()) > _SAME_COLOUR_LEVELS
