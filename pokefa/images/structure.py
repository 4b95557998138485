"""The structure of an image file, read without decoding: parts are counted against caps, and ballast is removed.

A few hundred bytes can cost a decoder minutes: empty scans, millions of comments or text chunks. The structure shows
their number. Each function here jumps from part to part and stops at its cap, so it takes milliseconds for any file.
Text and metadata that no pixel depends on are removed before decoding: Pillow refuses an image with too long a text,
and joins EXIF segments in quadratic time.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from pokefa.errors import ImageError

# Encoders write about 10 scans, a few up to 100. For 64 million grey pixels an empty scan costs 20 ms.
MAX_SCANS = 128
# Encoders write 10 to 30 segments. A file of 50 MB, the cap, has room for 800 of full length.
MAX_SEGMENTS = 1000
# A PNG of 50 MB has 6,400 chunks at libpng's 8,192 bytes each; its shortest have 512.
MAX_CHUNKS = 100_000

# Metadata is read for the orientation and the colour profile, which are far smaller.
MAX_TEXT = 2**20
MAX_EXIF_SEGMENTS = 16
MAX_PROFILE = 16 * 2**20  # as long as the profile of a JPEG can be

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Caps:
    """The largest number of parts that a file may have.

    Args:
        scans: scans of a JPEG.
        segments: segments of a JPEG: all parts with a marker and a length, including comments and EXIF.
        chunks: chunks of a PNG or WebP; blocks before the first frame of a GIF; entries, strips and tiles of a TIFF.
    """

    scans: int = MAX_SCANS
    segments: int = MAX_SEGMENTS
    chunks: int = MAX_CHUNKS


def without_ballast(name: str | None, data: bytes, caps: Caps) -> bytes:
    """Return a file reduced to what its pixels, colours and orientation need.

    After a break in the structure, the rest is kept for the decoder to judge.

    Args:
        name: the format, from `pokefa.images.formats.recognise`.

    Raises:
        ImageError: `too_many_scans`, `too_many_segments` or `too_many_chunks`.
    """
    walk = _WALKS.get(name or "")
    return data if walk is None else walk(data, caps)


# -- JPEG -------------------------------------------------------------------------------------------------------------

_SCAN, _END, _COMMENT, _EXIF = 0xDA, 0xD9, 0xFE, 0xE1
_APPLICATION = range(0xE0, 0xF0)
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # a stuffed zero and a restart marker belong to the scan
# Application segments to keep: the colour space, EXIF and XMP for the orientation, and the colour profile.
_KEPT_SEGMENTS = {
    0xE0: (b"",),
    _EXIF: (b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"),
    0xE2: (b"ICC_PROFILE\0",),
    0xEE: (b"Adobe",),
}


def _walk_jpeg(data: bytes, caps: Caps) -> bytes:
    cuts: list[tuple[int, int]] = []
    scans = segments = exif = 0
    at = 2
    while (found := (_MARKER_AFTER_SCAN if scans else _MARKER).search(data, at)) is not None:
        marker = data[found.start() + 1]
        if not scans:
            cuts.append((at, found.start()))  # bytes between segments, which Pillow would read one by one
        at = found.end()
        if marker == _END:
            cuts.append((at, len(data)))
            break
        segments += 1
        if segments > caps.segments:
            raise ImageError("too_many_segments", f"over {caps.segments} segments in a JPEG")
        if marker in _WITHOUT_LENGTH:
            if not scans:
                cuts.append((found.start(), at))
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            break
        segment = data[at + 2 : at + length]
        at += length
        if marker == _SCAN:
            scans += 1
            if scans > caps.scans:
                raise ImageError("too_many_scans", f"over {caps.scans} scans in a JPEG")
        elif marker == _COMMENT or marker in _APPLICATION:
            exif += marker == _EXIF
            if exif > MAX_EXIF_SEGMENTS or not segment.startswith(_KEPT_SEGMENTS.get(marker, ())):
                cuts.append((found.start(), at))
    return _cut_out(data, cuts)


# -- PNG --------------------------------------------------------------------------------------------------------------

_PNG_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_PNG_BALLAST = {*_PNG_TEXTS, b"iCCP"}
# The texts in which Pillow looks for an orientation.
_ORIENTATION_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")


def _walk_png(data: bytes, caps: Caps) -> bytes:
    cuts: list[tuple[int, int]] = []
    seen: set[bytes] = set()
    at = len(PNG_SIGNATURE)
    chunks = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + length + 12  # including length, type and checksum
        chunks += 1
        if chunks > caps.chunks:
            raise ImageError("too_many_chunks", f"over {caps.chunks} chunks in a PNG")
        if kind == b"IEND":
            cuts.append((end, len(data)))
            break
        if kind in _PNG_BALLAST and not _is_wanted(kind, data[at + 8 : end - 4], seen):
            cuts.append((at, end))
        at = end
    return _cut_out(data, cuts)


def may_be_turned(data: bytes) -> bool:
    """Tell whether a PNG without ballast has a chunk that may contain an orientation."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"eXIf" or kind in _PNG_TEXTS:
            return True
        at += length + 12
    return False


def _is_wanted(kind: bytes, content: bytes, seen: set[bytes]) -> bool:
    """Tell whether to keep a text or profile of a PNG: the first of each kind, if it is relevant and not too long."""
    keyword, _, rest = content.partition(b"\0")
    name = kind if kind == b"iCCP" else keyword
    if name in seen or (kind != b"iCCP" and keyword not in _ORIENTATION_TEXTS):
        return False
    seen.add(name)
    if kind == b"iCCP":
        return _unpacks_within(rest[1:], MAX_PROFILE)
    if kind == b"zTXt":
        return _unpacks_within(rest[1:], MAX_TEXT)
    if kind == b"iTXt" and rest[:1] == b"\1":  # compressed; a language and a translated keyword come first
        return _unpacks_within(rest[2:].split(b"\0", 2)[-1], MAX_TEXT)
    return len(content) <= MAX_TEXT


def _unpacks_within(packed: bytes, most: int) -> bool:
    try:
        return len(zlib.decompressobj().decompress(packed, most + 1)) <= most
    except zlib.error:
        return False


# -- WebP, GIF, TIFF: counted, and left unchanged ---------------------------------------------------------------------


def _walk_webp(data: bytes, caps: Caps) -> bytes:
    at = 12
    for _ in range(caps.chunks):
        if at + 8 > len(data):
            return data
        (length,) = struct.unpack_from("<I", data, at + 4)
        at += 8 + length + length % 2
    raise ImageError("too_many_chunks", f"over {caps.chunks} chunks in a WebP")


def webp_size(data: bytes) -> tuple[int, int]:
    """Return the width and height in a WebP's header; (0, 0) if it has none of the three headers."""
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def _walk_gif(data: bytes, caps: Caps) -> bytes:
    """Count the blocks before the first frame, because Pillow reads all of them."""
    if len(data) < 13:
        return data
    flags = data[10]
    at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)  # after the palette
    inside = False  # an extension: its type, then blocks of a length and up to 255 bytes, until an empty one
    for _ in range(caps.chunks):
        if at >= len(data) or not (inside or data[at : at + 1] == b"!"):
            return data
        if not inside:
            at += 2
            inside = True
            continue
        inside = data[at] > 0
        at += 1 + data[at]
    raise ImageError("too_many_chunks", f"over {caps.chunks} blocks before the first frame of a GIF")


_STRIPS_AND_TILES = {273, 279, 324, 325}  # the tags of their offsets and lengths


def _walk_tiff(data: bytes, caps: Caps) -> bytes:
    """Count the entries of the first directory, and the strips or tiles of its image."""
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    entry, first, number = ("HHQ8s", "Q", "Q") if big else ("HHI4s", "I", "H")
    try:
        (at,) = struct.unpack_from(order + first, data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + number, data, at)
        at += struct.calcsize(order + number)
        for _ in range(min(entries, caps.chunks)):
            tag, _, count, _ = struct.unpack_from(order + entry, data, at)
            at += struct.calcsize(order + entry)
            if tag in _STRIPS_AND_TILES and count > caps.chunks:
                raise ImageError("too_many_chunks", f"over {caps.chunks} strips or tiles in a TIFF")
    except (struct.error, OverflowError):
        return data
    if entries > caps.chunks:
        raise ImageError("too_many_chunks", f"over {caps.chunks} entries in the directory of a TIFF")
    return data


_WALKS: dict[str, Callable[[bytes, Caps], bytes]] = {
    "JPEG": _walk_jpeg,
    "PNG": _walk_png,
    "WEBP": _walk_webp,
    "GIF": _walk_gif,
    "TIFF": _walk_tiff,
}


def _cut_out(data: bytes, cuts: list[tuple[int, int]]) -> bytes:
    """Return `data` without the sorted ranges; `data` itself, not a copy, if there is nothing to cut."""
    kept = []
    at = 0
    for start, end in cuts:
        if start < end and at <= start:
            kept.append(data[at:start])
            at = end
    return b"".join([*kept, data[at:]]) if kept else data
