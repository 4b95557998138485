"""What is written can be read back, byte for byte."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from preprocess.resize.metadata import strip_metadata
from preprocess.resize.png import encode_png

CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


@given(st.sampled_from(sorted(CHANNELS)), st.integers(1, 20), st.integers(1, 20), st.randoms(use_true_random=False))
def test_round_trip(mode: str, width: int, height: int, chance: object) -> None:
    image = Image.frombytes(mode, (width, height), chance.randbytes(width * height * CHANNELS[mode]))  # type: ignore[attr-defined]
    data = encode_png(image, 6)
    read = Image.open(io.BytesIO(data))
    assert (read.format, read.mode, read.size, read.tobytes()) == ("PNG", mode, image.size, image.tobytes())
    assert strip_metadata(data) == data
    assert encode_png(image, 6) == data
    assert encode_png(np.asarray(image), 6) == data


def test_smooth_pictures_become_small() -> None:
    image = Image.linear_gradient("L").resize((600, 400)).convert("RGB")
    assert len(encode_png(image, 6)) < len(encode_png(image, 1)) < 600 * 400 * 3 / 50


def test_other_modes_are_refused() -> None:
    with pytest.raises(ValueError) as caught:
        encode_png(Image.new("CMYK", (2, 2)), 6)
    assert str(caught.value) == "cannot write a PNG of mode CMYK"


def filter_of(data: bytes) -> int:
    start = data.index(b"IDAT")
    return zlib.decompress(data[start + 4 : start + 4 + int.from_bytes(data[start - 4 : start], "big")])[0]


def test_grain_and_flat_colours_have_filters_of_their_own() -> None:
    flat = Image.linear_gradient("L").point(lambda value: value // 32 * 32).resize((700, 400), Image.Resampling.NEAREST)
    grain = Image.blend(Image.radial_gradient("L"), Image.effect_noise((256, 256), 60), 0.3).resize((700, 400))
    for image, expected in ((flat.convert("RGB"), 2), (grain.convert("RGB"), 3)):
        data = encode_png(image, 3)
        assert filter_of(data) == expected
        assert Image.open(io.BytesIO(data)).tobytes() == image.tobytes()  # many strips are filtered one by one
