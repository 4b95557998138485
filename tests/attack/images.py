"""Hostile images by kind, each as small as it can be: a few bytes that ask a decoder for minutes or gigabytes."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def picture(side: int = 64) -> Image.Image:
    """Return an RGB picture in which each pixel can be told from its neighbours."""
    ramp = Image.linear_gradient("L").resize((side, side))
    return Image.merge(
        "RGB", [ramp, ramp.transpose(Image.Transpose.ROTATE_90), ramp.transpose(Image.Transpose.ROTATE_180)]
    )


# -- JPEG -------------------------------------------------------------------------------------------------------------


def jpeg_with_scans(scans: int, side: int = 64) -> bytes:
    """Return a progressive JPEG that repeats its last scan until it has so many: each goes over all pixels again."""
    data = encoded(picture(side).convert("L"), "JPEG", progressive=True, quality=50)
    parts, at = [], 2
    while data[at + 1] != 0xD9:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xDA:
            while data[end] != 0xFF or data[end + 1] == 0:
                end += 1
        parts.append(data[at:end])
        at = end
    there = sum(part[1] == 0xDA for part in parts)
    last = max(place for place, part in enumerate(parts) if part[1] == 0xDA)
    return data[:2] + b"".join(parts) + parts[last] * (scans - there) + data[at:]


def jpeg_segment(marker: int, content: bytes = b"") -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(content)) + content


def jpeg_with(header: bytes) -> bytes:
    """Return a JPEG of `picture` with more in its header."""
    data = encoded(picture(), "JPEG", quality=95)
    return data[:2] + header + data[2:]


# -- PNG --------------------------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(before: bytes = b"", after: bytes = b"", image: Image.Image | None = None) -> bytes:
    """Return a PNG of `picture` with more chunks before and behind its pixels."""
    data = encoded(image or picture(), "PNG")
    start = data.index(b"IDAT") - 4
    end = data.index(b"IEND") - 4
    return data[:start] + before + data[start:end] + after + data[end:]


def packed_text(length: int) -> bytes:
    """Return what zlib makes of a text of that length."""
    return zlib.compress(b"text" * (length // 4), 9)


# -- WebP, GIF, TIFF, BMP ---------------------------------------------------------------------------------------------


def webp_of_one_colour(side: int) -> bytes:
    """Return a WebP of a few dozen bytes, whatever its size: no bit is spent on a pixel."""
    data = bytearray(encoded(Image.new("RGB", (8, 8), (200, 30, 90)), "WEBP", lossless=True))
    at = data.index(b"VP8L") + 9
    bits = int.from_bytes(data[at : at + 4], "little") >> 28 << 28  # alpha and version
    data[at : at + 4] = (bits | (side - 1) | (side - 1) << 14).to_bytes(4, "little")
    return bytes(data)


def webp_with_chunks(chunks: int) -> bytes:
    data = encoded(picture(), "WEBP") + b"JUNK\0\0\0\0" * chunks
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def gif_with_blocks(blocks: int) -> bytes:
    """Return a GIF with a comment of one-byte blocks before its frame."""
    data = encoded(picture().quantize(16), "GIF")
    at = 13 + (3 << ((data[10] & 7) + 1))
    return data[:at] + b"!\xfe" + b"\1a" * blocks + b"\0" + data[at:]


def tiff_with_strips(strips: int) -> bytes:
    """Return a TIFF of 8 x 8 pixels that names so many strips."""
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    behind = 8 + 2 + 12 * 8 + 4
    tags += [(273, 4, strips, behind), (278, 4, 1, 1), (279, 4, strips, behind)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + bytes(4 * strips)


def tiff_with_entries(entries: int) -> bytes:
    """Return a BigTIFF whose directory has so many entries, and no image."""
    return b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, entries) + bytes(20 * entries + 8)


def bmp_run_length(side: int) -> bytes:
    """Return a BMP of run-length encoded pixels, over which Pillow loops in Python."""
    runs = [255] * (side // 255) + [side % 255] * bool(side % 255)
    rows = (b"".join(bytes([run, 0x12]) for run in runs) + b"\0\0") * side
    palette = b"".join(bytes([level * 16, level, 255 - level, 0]) for level in range(16))
    offset = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 4, 2, len(rows), 0, 0, 16, 16)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header + palette + rows


# -- images that are not read, by their first bytes -------------------------------------------------------------------


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


NOT_READ = {
    "HEIC": box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(100)),
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100),
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "SVG": b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "PSD": b"8BPS\0\1" + bytes(100),
    "CLIP": b"CSFCHUNK" + bytes(100),
    "ICO": b"\0\0\1\0\1\0" + bytes(100),
    "PNM": b"P6\n64 64\n255\n" + bytes(100),
    "QOI": b"qoif" + bytes(100),
}

NO_IMAGE = {
    "text": b"BMW, MM and II are no formats: this is a text.",
    "page": b"<!doctype html><title>none</title>",
    "page with a drawing": b"<!-- a page --><html><body><svg xmlns='http://www.w3.org/2000/svg'/></body></html>",
    "video": box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41") + bytes(100),
    "archive": b"PK\3\4" + bytes(100),
    "zeros": bytes(100),
}
