"""Removing the metadata from an image file without changing its pixels.

The parts that a decoder needs and the colour profile are kept byte for byte. Everything else is removed: EXIF with
locations and cameras, XMP, IPTC, comments, thumbnails, and any data after the end of the image.
"""

from __future__ import annotations

import struct

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# PNG, third edition, table 7: the chunks that affect the pixels; names with a capital initial are critical.
_PNG_CHUNKS = {b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"cLLI", b"sBIT", b"bKGD", b"pHYs"}
_WEBP_CHUNKS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP"}
_WEBP_EXIF_AND_XMP = 0x08 | 0x04  # flags in the first byte of VP8X

_SCAN, _END, _COMMENT = 0xDA, 0xD9, 0xFE
_NO_MARKER = {0x00, 0xFF, *range(0xD0, 0xD8)}  # after FF in a scan: a stuffed byte, a fill byte, a restart
# Application segments that affect the pixels: the resolution, the profile, and the colour space.
_JPEG_KEPT = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}


def strip_metadata(data: bytes) -> bytes:
    """Return the file without metadata; the same bytes if it has none.

    Args:
        data: a complete JPEG, PNG or WebP file with one frame.

    Raises:
        ValueError: the structure of the file is unknown.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _strip_jpeg(data)
        if data.startswith(_SIGNATURE):
            return _strip_png(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _strip_webp(data)
    except (struct.error, IndexError):
        raise ValueError("the file ends in the middle of a segment") from None
    raise ValueError("neither JPEG nor PNG nor WebP")


def _strip_jpeg(data: bytes) -> bytes:
    kept = [data[:2]]
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError(f"no JPEG marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _NO_MARKER:
            raise ValueError(f"marker {marker:02X} at byte {at} belongs in a scan")
        if marker == _END:
            kept.append(data[at : at + 2])
            return b"".join(kept)
        (length,) = struct.unpack_from(">H", data, at + 2)
        end = at + 2 + length
        if marker == _SCAN:
            end = _end_of_scan(data, end)
        application = 0xE0 <= marker <= 0xEF
        wanted = data.startswith(_JPEG_KEPT[marker], at + 4) if marker in _JPEG_KEPT else not application
        if wanted and marker != _COMMENT:
            kept.append(data[at:end])
        at = end


def _end_of_scan(data: bytes, at: int) -> int:
    """Return the offset of the marker after a scan's entropy-coded bytes."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            raise ValueError("a JPEG scan has no end")
        if data[at + 1] not in _NO_MARKER:
            return at
        at += 1


def _strip_png(data: bytes) -> bytes:
    kept = [_SIGNATURE]
    at = len(_SIGNATURE)
    while True:
        length, name = struct.unpack_from(">I4s", data, at)
        end = _within(data, at + 12 + length)
        if name[:1].isupper() or name in _PNG_CHUNKS:
            kept.append(data[at:end])
        if name == b"IEND":
            return b"".join(kept)
        at = end


def _strip_webp(data: bytes) -> bytes:
    (size,) = struct.unpack_from("<I", data, 4)
    kept = []
    at, stop = 12, 8 + size
    while at < stop:
        name, length = struct.unpack_from("<4sI", data, at)
        end = _within(data, at + 8 + length + length % 2)
        chunk = data[at:end]
        if name == b"VP8X":
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_EXIF_AND_XMP]) + chunk[9:]
        if name in _WEBP_CHUNKS:
            kept.append(chunk)
        at = end
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _within(data: bytes, end: int) -> int:
    if end > len(data):
        raise ValueError("the file ends in the middle of a chunk")
    return end
