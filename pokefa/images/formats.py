"""The image formats: which are read, how their bytes begin, and which others are known by name.

`FORMATS` is the one list. A new format is a line there; if a cheap count can tell that a file of it decodes for ever,
the count belongs in `pokefa.images.structure`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Bytes that are enough to know a format by. An SVG may have comments and a document type before its first element.
HEAD = 1024

_BOX = 8  # length and type of a box of ISO 14496-12, on which AVIF and HEIC are built
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}


@dataclass(frozen=True)
class Format:
    """An image format that is read.

    Args:
        name: what Pillow and the column `fmt` call it.
        suffix: of its files, without a dot.
        media_type: what HTTP calls it.
        begins: matches the first bytes of its files; None where only the brands of the first box tell.
        resized_as: the format of its resized file. Later stages and the shards hold JPEG, PNG and WebP alone.
        pixel_bytes: the most memory that decoding and converting take for each pixel.
    """

    name: str
    suffix: str
    media_type: str
    begins: re.Pattern[bytes] | None
    resized_as: str
    pixel_bytes: int


# pixel_bytes: the least RLIMIT_DATA with which `open_image` and `flatten` succeed, for pictures with alpha, a profile
# and an orientation, and a fifth more. A decoded pixel takes 4 bytes, and each conversion as many again. On top come
# the coefficients of a progressive JPEG (6 bytes a pixel at 4:4:4), the canvases of libwebp's animation decoder (12),
# and the frames of an AV1 decoder.
_READ = (
    Format("JPEG", "jpg", "image/jpeg", re.compile(rb"\xff\xd8\xff"), "JPEG", 20),
    Format("PNG", "png", "image/png", re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG", 20),
    Format("WEBP", "webp", "image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL), "WEBP", 28),
    # Like WebP: lossy as a rule, perhaps with alpha.
    Format("AVIF", "avif", "image/avif", None, "WEBP", 32),
    # These have no loss, and PNG adds none.
    Format("GIF", "gif", "image/gif", re.compile(rb"GIF8[79]a"), "PNG", 20),
    # The length of the second header is one of seven; without it any text that starts with BM would be a bitmap.
    Format(
        "BMP", "bmp", "image/bmp", re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "PNG", 20
    ),
    Format("TIFF", "tif", "image/tiff", re.compile(rb"II[*+]\0|MM\0[*+]"), "PNG", 28),
)
FORMATS = {one.name: one for one in _READ}
SUFFIXES = {one.name: one.suffix for one in _READ}
# What the resized files, the final set and the shards hold, in this order wherever it shows.
KEPT_FORMATS = ("JPEG", "PNG", "WEBP")

# The Accept header for an image: all that is read, and whatever else the server may have.
ACCEPT = ",".join([*(one.media_type for one in _READ), "*/*;q=0.1"])

# Images that are not read. TARGA, PCX and WBMP files begin with nothing that is theirs alone.
_NOT_READ = (
    ("JPEG XL", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n")),
    ("JPEG 2000", re.compile(rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n")),
    ("JPEG XR", re.compile(rb"II\xbc")),
    ("PSD", re.compile(rb"8BPS\0[\x01\x02]")),
    ("CLIP", re.compile(rb"CSFCHUNK")),
    ("XCF", re.compile(rb"gimp xcf ")),
    ("ICO", re.compile(rb"\0\0[\x01\x02]\0[\x01-\x40]\0")),
    ("ICNS", re.compile(rb"icns")),
    ("DDS", re.compile(rb"DDS \x7c\0\0\0")),
    ("QOI", re.compile(rb"qoif")),
    ("OpenEXR", re.compile(rb"\x76\x2f\x31\x01")),
    ("Radiance HDR", re.compile(rb"#\?(?:RADIANCE|RGBE)\n")),
    ("MNG", re.compile(rb"\x8aMNG\r\n\x1a\n")),
    ("JNG", re.compile(rb"\x8bJNG\r\n\x1a\n")),
    ("FLIF", re.compile(rb"FLIF[1-9A-Za-z]")),
    ("BPG", re.compile(rb"BPG\xfb")),
    ("PNM", re.compile(rb"P[1-6]\s+\d+\s+\d+\s|P7\nWIDTH")),
    ("EPS", re.compile(rb"%!PS-Adobe-\d\.\d EPSF|\xc5\xd0\xd3\xc6")),
    ("WMF", re.compile(rb"\xd7\xcd\xc6\x9a")),
    ("EMF", re.compile(rb"\x01\0\0\0.{36} EMF", re.DOTALL)),
)


def recognise(data: bytes) -> str | None:
    """Return the format of an image file by its first HEAD bytes, read or not, or None for what is no image."""
    head = data[:HEAD]
    for one in _READ:
        if one.begins is not None and one.begins.match(head):
            return one.name
    brands = _brands(head)
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIC_BRANDS:
        return "HEIC"
    for name, begins in _NOT_READ:
        if begins.match(head):
            return name
    return "SVG" if _is_svg(head) else None


def _brands(head: bytes) -> set[bytes]:
    """Return the brands in a file's first box: the formats that its maker says it keeps to."""
    if head[4:8] != b"ftyp":
        return set()
    box = head[_BOX : int.from_bytes(head[:4], "big")]
    return {box[:4], *(box[at : at + 4] for at in range(_BOX, len(box), 4))}  # the second four bytes are a version


def _is_svg(head: bytes) -> bool:
    """Tell whether a text is an SVG, and not a page with one in it."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text and b"<html" not in text
