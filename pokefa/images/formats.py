"""The supported image formats, how their bytes begin, and other formats that are recognised by name.

`FORMATS` is the only list. A new format is one line in it. If counting a file's parts can show that it would decode
forever, add the count to `pokefa.images.structure`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Bytes needed to recognise a format. An SVG may have comments and a document type before its first element.
HEAD = 1024

_BOX = 8  # length and type of a box of ISO 14496-12, on which AVIF and HEIC are built
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}


@dataclass(frozen=True)
class Format:
    """A supported image format.

    Args:
        name: its name in Pillow and in the column `fmt`.
        suffix: its file name extension, without a dot.
        media_type: its name in HTTP.
        begins: matches the first bytes of its files; None if only the brands of the first box identify it.
        resized_as: the format of its resized file. Later stages and the shards contain JPEG, PNG and WebP only.
        pixel_bytes: the largest memory per pixel for decoding and converting.
    """

    name: str
    suffix: str
    media_type: str
    begins: re.Pattern[bytes] | None
    resized_as: str
    pixel_bytes: int


# pixel_bytes: the smallest RLIMIT_DATA with which `open_image` and `flatten` succeed, plus a fifth, for images with
# alpha, a profile and an orientation. A decoded pixel takes 4 bytes, and so does each conversion. In addition there are
# the coefficients of a progressive JPEG (6 bytes per pixel at 4:4:4), the canvases of libwebp's animation decoder (12),
# and the frames of an AV1 decoder.
_READ = (
    Format("JPEG", "jpg", "image/jpeg", re.compile(rb"\xff\xd8\xff"), "JPEG", 20),
    Format("PNG", "png", "image/png", re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG", 20),
    Format("WEBP", "webp", "image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL), "WEBP", 28),
    # Like WebP: usually lossy, possibly with alpha.
    Format("AVIF", "avif", "image/avif", None, "WEBP", 32),
    # These are lossless, and so is PNG.
    Format("GIF", "gif", "image/gif", re.compile(rb"GIF8[79]a"), "PNG", 20),
    # The second header has one of seven lengths; without this check any text that starts with BM would be a bitmap.
    Format(
        "BMP", "bmp", "image/bmp", re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL), "PNG", 20
    ),
    Format("TIFF", "tif", "image/tiff", re.compile(rb"II[*+]\0|MM\0[*+]"), "PNG", 28),
)
FORMATS = {one.name: one for one in _READ}
SUFFIXES = {one.name: one.suffix for one in _READ}
# The formats of the resized files, the final set and the shards, in display order.
KEPT_FORMATS = ("JPEG", "PNG", "WEBP")

# The Accept header for an image: the supported formats, then anything else.
ACCEPT = ",".join([*(one.media_type for one in _READ), "*/*;q=0.1"])

# Unsupported formats. TARGA, PCX and WBMP files have no distinctive first bytes.
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
    """Return the format of an image file by its first HEAD bytes, supported or not, or None if it is not an image."""
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
    """Return the brands in a file's first box: the formats that it declares."""
    if head[4:8] != b"ftyp":
        return set()
    box = head[_BOX : int.from_bytes(head[:4], "big")]
    return {box[:4], *(box[at : at + 4] for at in range(_BOX, len(box), 4))}  # bytes 4 to 8 are a version


def _is_svg(head: bytes) -> bool:
    """Tell whether a text is an SVG, and not a page that contains one."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text and b"<html" not in text
