"""Opening strangers' images: capped, upright, in sRGB, first frame, with every failure named.

`open_image` is the only way that a stage opens an image. It returns the mode "RGB", "RGBA", "L" or "LA" at 8 bits per
channel; `flatten` gives a model its RGB. `check_image` tells format and size without converting anything.
`needs_conversion` tells whether other programs would see the same picture in the file as it is, and `place_file` gives
such a file another name without copying it.
"""

from __future__ import annotations

import filecmp
import io
import itertools
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import ExifTags, Image, ImageChops, ImageCms, ImageOps

from pokefa.errors import PokefaError
from pokefa.table import replacing

MAX_BYTES = 50 * 2**20
MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "WEBP")
SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}

Result = TypeVar("Result")

_WHITE = (255, 255, 255)
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_TURNED = (2, 3, 4, 5, 6, 7, 8)  # the EXIF orientations that are not upright
_ON_THEIR_SIDE = (5, 6, 7, 8)  # the EXIF orientations that swap width and height
# What Pillow reads an orientation from; a PNG may have it behind the pixels, and is decoded to get there.
_PNG_ORIENTATION = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = b"IDAT"
_PNG_BIT_DEPTH = 24  # its offset: signature, then length, name, width and height of the IHDR chunk
# Colours that a profile moves by no more than this look the same with and without it. The many sRGB profiles about
# differ from each other by one or two levels of rounding.
_SAME_COLOUR_LEVELS = 2


class ImageError(PokefaError):
    """An image that cannot be used; the message starts with its reason slug.

    Slugs: `missing_file`, `empty_file`, `too_many_bytes`, `too_many_pixels`, `not_an_image`, `truncated`.
    """

    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(f"{slug}: {detail}")
        self.slug = slug
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.slug, self.detail)  # so that it comes whole out of a worker process


def open_image(
    source: Path | bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = FORMATS,
    reduce: int = 1,
) -> Image.Image:
    """Return the decoded first frame of a file: upright, in sRGB, 8 bits per channel.

    The result has mode RGB or RGBA, or L or LA for grey images. Of 16 bits the upper 8 are used; grey is rounded. An
    embedded colour profile is followed where it fits the image, and CMYK without one is inverted plainly. Palettes
    and transparent colours are resolved, except the transparent colour of a 16-bit PNG, which is taken as opaque.
    Metadata is not carried over; `image.format` tells the file's format.

    Args:
        reduce: 2, 4 or 8 decodes a JPEG at that fraction of its width and height, in less time. It must divide both,
            so that the smaller picture shows exactly the same. Other formats come whole.

    Raises:
        ImageError: the file is missing, too large, of another format than `formats`, or damaged.
    """

    def convert(opened: Image.Image) -> Image.Image:
        if reduce > 1:
            opened.draft(opened.mode, (opened.width // reduce, opened.height // reduce))
        opened.load()
        if _orientation(opened, data) == 1:
            # Pillow's public ways to an image that is no open file, such as exif_transpose, copy all pixels.
            return _to_srgb(opened._new(opened.im))
        return _to_srgb(ImageOps.exif_transpose(opened))

    data = read_file(source, max_bytes)
    image, name = _open(data, max_pixels, formats, convert)
    image.format = name
    image.info = {}
    return image


@dataclass(frozen=True)
class Facts:
    """What a file holds: its format, and width and height in pixels after EXIF orientation."""

    format: str
    width: int
    height: int


def check_image(
    source: Path | bytes,
    *,
    decode: bool = True,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = FORMATS,
) -> Facts:
    """Return the facts about an image; with `decode`, having read every bit of its first frame.

    A JPEG is then decoded at an eighth of its size: the coded data are read to their end all the same, and only the
    inverse transform, in which nothing can go wrong, is smaller.

    Raises:
        ImageError: as `open_image`; without `decode`, damage behind the header is not seen.
    """

    def facts(opened: Image.Image) -> tuple[int, int]:
        turned = _orientation(opened, data) in _ON_THEIR_SIDE
        width, height = opened.size
        if decode:
            opened.draft(opened.mode, (1, 1))
            opened.load()
        return (height, width) if turned else (width, height)

    data = read_file(source, max_bytes)
    (width, height), name = _open(data, max_pixels, formats, facts)
    return Facts(str(name), width, height)


def needs_conversion(
    source: Path | bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] | None = FORMATS,
) -> str | None:
    """Return why other programs may see another picture in the file than `open_image` gives, or None.

    The reason is `animated`, `rotated`, `cmyk`, `sixteen_bit` or `profile`. A palette, a bit of grey or an alpha
    channel is no reason, and neither is a profile that leaves sRGB colours as they are.

    Raises:
        ImageError: as `open_image`; the pixels are not decoded here, so damage in them is not seen.
    """
    data = read_file(source, max_bytes)

    def reason(opened: Image.Image) -> str | None:
        # A JPEG with more pictures behind the first (MPO) shows its first everywhere; frames are for PNG and WebP.
        if opened.format in ("PNG", "WEBP") and getattr(opened, "is_animated", False):
            return "animated"
        if _orientation(opened, data) != 1:
            return "rotated"
        if opened.mode == "CMYK":
            return "cmyk"
        if data.startswith(_PNG_SIGNATURE) and data[_PNG_BIT_DEPTH] == 16:
            return "sixteen_bit"
        return "profile" if _profile_moves_colours(opened) else None

    return _open(data, max_pixels, formats, reason)[0]


def place_file(source: Path, target: Path) -> bool:
    """Give `source` the second name `target`, by hard link or across devices by copy; return False if it has it.

    `target` appears whole, or is replaced whole. The caller makes its folder, and syncs it when it matters.

    Raises:
        PokefaError: the file could not be placed; `target` is as it was.
    """
    temporary = target.with_name(f".{target.name}.link")
    try:
        if target.exists() and filecmp.cmp(source, target):
            return False
        temporary.unlink(missing_ok=True)
        os.link(source, temporary)
        temporary.replace(target)
    except FileNotFoundError as error:
        raise PokefaError(f"cannot place {source} at {target}: {error.strerror}") from None
    except OSError:  # another device, a file system without links, or a file with too many
        with replacing(target) as copy, source.open("rb") as stream:
            shutil.copyfileobj(stream, copy)
        shutil.copystat(source, target)  # the same size and time tell the next call that the bytes are the same
    return True


def to_png(image: Image.Image, level: int = -1) -> bytes:
    """Return the PNG file of an image; `level` is zlib's, of which -1 is its own choice."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=level)
    return stream.getvalue()


def flatten(image: Image.Image) -> Image.Image:
    """Return the image as RGB, alpha laid on white."""
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
            with source.open("rb") as stream:
                data = stream.read(max_bytes + 1)
        except OSError as error:
            raise ImageError("missing_file", f"{source.name}: {error.strerror or error}") from None
    if not data:
        raise ImageError("empty_file", "0 bytes")
    if len(data) > max_bytes:
        raise ImageError("too_many_bytes", f"over {max_bytes} bytes")
    return data


def _open(
    data: bytes,
    max_pixels: int,
    formats: tuple[str, ...] | None,
    use: Callable[[Image.Image], Result],
) -> tuple[Result, str | None]:
    """Return what `use` makes of the opened image, whose pixels it loads itself, and the name of its format.

    Raises:
        ImageError: the bytes are no image, one over `max_pixels`, or damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own bomb warning and EXIF remarks: the caps decide
        try:
            opened = Image.open(io.BytesIO(data), formats=formats)
        except Image.DecompressionBombError as error:
            raise ImageError("too_many_pixels", str(error)) from None
        except Exception:
            raise _unopened(data, formats) from None
        with opened:
            width, height = opened.size
            if width * height > max_pixels:
                raise ImageError("too_many_pixels", f"{width}x{height} is over {max_pixels} pixels")
            # Phones append more pictures to a JPEG and Pillow calls that MPO; the first is a plain JPEG.
            name = "JPEG" if opened.format == "MPO" else opened.format
            try:
                return use(opened), name
            except Exception as error:
                raise ImageError("truncated", f"{type(error).__name__}: {error}") from None


def _orientation(opened: Image.Image, data: bytes) -> int:
    """Return the EXIF orientation of an opened file with the bytes `data`: 2 to 8, or 1, upright, for all else."""
    if opened.format == "PNG" and not any(name in chunk for chunk in _png_chunks(data) for name in _PNG_ORIENTATION):
        return 1
    found = opened.getexif().get(ExifTags.Base.Orientation)
    return found if found in _TURNED else 1


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """Yield the type and content of each chunk of a PNG that holds no pixels, as far as the chunks follow one another.

    To look for a word in the pixels too would cost more than to hash them.
    """
    place = len(_PNG_SIGNATURE)
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] != _PNG_PIXELS:
            yield data[place + 4 : place + 8 + length]
        place += length + 12  # with the length itself, the type and the checksum


def _unopened(data: bytes, formats: tuple[str, ...] | None) -> ImageError:
    """Return the error for bytes that Pillow did not open: a damaged image still begins like one."""
    webp = data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    begins = "JPEG" if data.startswith(b"\xff\xd8\xff") else "PNG" if data.startswith(_PNG_SIGNATURE) else None
    begins = "WEBP" if webp else begins
    if begins and (formats is None or begins in formats):
        return ImageError("truncated", f"begins as {begins}, but cannot be decoded")
    expected = " or ".join(formats or ("any image format",))
    return ImageError("not_an_image", f"the bytes are not {expected}")


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
    """Return the image converted to sRGB; as it is where the profile is damaged or of another colour space."""
    alpha = image.getchannel("A") if "A" in image.mode else None
    colours = image.convert(image.mode.rstrip("A")) if alpha is not None else image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    assert converted is not None  # None is the answer only where the image is converted in place
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
