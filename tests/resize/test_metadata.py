"""Metadata goes, every pixel stays, and a structure that is not understood is said to be so."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from preprocess.resize.metadata import strip_metadata

NAME = b"An Artist's Name"


def encoded(form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((70, 50), 90).convert("RGB").save(stream, form, **options)
    return stream.getvalue()


def exif() -> Image.Exif:
    block = Image.Exif()
    block[0x013B] = NAME.decode()
    return block


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).tobytes()


VARIANTS: list[dict[str, Any]] = [
    {"form": "JPEG"},
    {"form": "JPEG", "progressive": True, "quality": 95, "subsampling": 0},
    {"form": "JPEG", "restart_marker_blocks": 2, "optimize": True},
    {"form": "PNG"},
    {"form": "PNG", "dpi": (300, 300)},
    {"form": "WEBP"},
    {"form": "WEBP", "lossless": True},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_files_without_metadata_are_returned_as_they_are(options: dict[str, Any]) -> None:
    data = encoded(**options)
    assert strip_metadata(data) == data


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_metadata_goes_and_pixels_stay(options: dict[str, Any]) -> None:
    data = encoded(**options, exif=exif(), **({"xmp": b"<x>" + NAME} if options["form"] != "PNG" else {}))
    assert NAME in data
    stripped = strip_metadata(data)
    assert NAME not in stripped
    assert pixels(stripped) == pixels(data)
    assert strip_metadata(stripped) == stripped


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


@pytest.mark.parametrize("marker", [*range(0xE0, 0xF0), 0xFE])
def test_any_application_segment_or_comment_goes(marker: int) -> None:
    data = encoded("JPEG")
    # Behind the JFIF segment, which is 20 bytes from the start; its body begins with none of the kept names.
    assert strip_metadata(data[:20] + jpeg_segment(marker, NAME) + data[20:]) == data


def test_fill_bytes_before_a_marker() -> None:
    data = encoded("JPEG")
    assert pixels(strip_metadata(data[:20] + b"\xff\xff" + data[20:])) == pixels(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_what_stands_behind_the_image_goes(form: str) -> None:
    data = encoded(form)
    assert strip_metadata(data + NAME) == data


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@given(share=st.floats(0, 0.999))
def test_a_cut_file_is_not_understood(form: str, share: float) -> None:
    data = encoded(form)
    with pytest.raises(ValueError, match=r"end|JPEG nor PNG"):
        strip_metadata(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GIF89a", "neither JPEG nor PNG nor WebP"),
        (b"\xff\xd8hello", "no JPEG marker at byte 2"),
        (b"\xff\xd8\xff\xd0\xff\xd9", "marker D0 at byte 2 belongs in a scan"),
        (b"\xff\xd8\xff\xda\0\2abc", "a JPEG scan has no end"),
        (b"\xff\xd8\xff\xe1", "the file ends in the middle of a segment"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\4IEND", "the file ends in the middle of a chunk"),
    ],
)
def test_messages(data: bytes, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        strip_metadata(data)
    assert str(caught.value) == message


@given(st.binary(max_size=200), st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x20\0\0\0WEBP", b""]))
def test_any_bytes_are_stripped_or_refused(data: bytes, start: bytes) -> None:
    try:
        stripped = strip_metadata(start + data)
    except ValueError:
        return
    assert len(stripped) <= len(start + data)
