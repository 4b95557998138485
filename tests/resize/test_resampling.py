"""Every way from a file to smaller pixels shows the same picture as decoding by Pillow and resizing by Pillow."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from pokefa.errors import ImageError
from pokefa.images.files import open_image
from preprocess.resize.policy import Bounds, Target, target_size
from preprocess.resize.resampling import as_image, open_plain, resample, resized_image
from tests.attack.images import encoded

BOUNDS = Bounds(16, 90, 200)


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return a smooth picture with some grain, another one in each channel."""
    chance = random.Random(7)
    ramps = [Image.linear_gradient("L"), Image.linear_gradient("L").rotate(90), Image.radial_gradient("L")]
    image = Image.merge("RGB", ramps).resize((width, height))
    image = Image.blend(image, Image.frombytes("RGB", image.size, chance.randbytes(3 * width * height)), 0.1)
    if mode in ("RGBA", "LA"):
        image = image.convert(mode.rstrip("A"))
        image.putalpha(Image.radial_gradient("L").resize(image.size))
    return image.quantize(200) if mode == "P" else image.convert(mode)


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def swapped_profile() -> bytes:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return srgb.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")


@pytest.mark.parametrize(
    ("form", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 90}),
        ("JPEG", "RGB", {"quality": 75, "subsampling": "4:4:4"}),
        ("JPEG", "RGB", {"progressive": True, "subsampling": "4:2:2"}),
        ("JPEG", "RGB", {"keep_rgb": True}),
        ("JPEG", "L", {}),
        ("PNG", "RGB", {}),
        ("PNG", "L", {}),
        ("PNG", "1", {}),
        ("PNG", "P", {}),
        ("PNG", "P", {"bits": 4}),
    ],
)
def test_plain_files_have_the_pixels_that_pillow_reads(form: str, mode: str, options: dict[str, Any]) -> None:
    image = picture(61, 47, mode)
    data = encoded(image.quantize(16) if options.get("bits") else image, form, **options)
    plain = open_plain(data, form)
    assert plain is not None
    expected = np.asarray(open_image(data))
    assert np.array_equal(plain.numpy().reshape(expected.shape), expected)


@pytest.mark.parametrize("by", [2, 4, 8])
def test_plain_jpegs_are_decoded_smaller_as_pillow_does(by: int) -> None:
    data = encoded(picture(160, 120), "JPEG", quality=90)
    plain = open_plain(data, "JPEG", by)
    assert plain is not None
    assert np.array_equal(plain.numpy(), np.asarray(open_image(data, reduce=by)))


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("WEBP", encoded(picture(60, 40), "WEBP")),
        ("JPEG", encoded(picture(60, 40), "JPEG", exif=rotated())),
        ("JPEG", encoded(picture(60, 40).convert("CMYK"), "JPEG")),
        ("PNG", encoded(picture(60, 40), "PNG", icc_profile=swapped_profile())),
        ("PNG", encoded(picture(60, 40, "L").convert("I;16"), "PNG")),
        ("PNG", encoded(picture(60, 40), "PNG", transparency=(9, 9, 9))),
        ("PNG", encoded(picture(60, 40, "P"), "PNG", transparency=3)),
        ("PNG", encoded(picture(60, 40, "LA"), "PNG")),
        ("PNG", encoded(picture(60, 40, "RGBA"), "PNG")),
    ],
)
def test_what_is_not_plain_goes_the_other_way(form: str, data: bytes) -> None:
    assert open_plain(data, form) is None
    target = target_size(*open_image(data).size, Bounds(10, 30, 45))
    made = resized_image(data, form, open_image(data).size, target)
    assert as_image(made).size == target.size


@given(st.sampled_from(["JPEG", "PNG"]), st.data())
def test_a_damaged_file_has_the_pixels_that_pillow_reads_or_is_left_to_it(form: str, draws: st.DataObject) -> None:
    data = bytearray(encoded(picture(40, 30), form))
    for _ in range(draws.draw(st.integers(1, 3))):
        data[draws.draw(st.integers(0, len(data) - 1))] = draws.draw(st.integers(0, 255))
    del data[draws.draw(st.integers(30, len(data))) :]
    try:
        plain = open_plain(bytes(data), form)
        pixels = None if plain is None else plain.numpy()
        expected = np.asarray(open_image(bytes(data)))
    except (ImageError, pyvips.Error):
        return
    if pixels is not None:
        assert np.array_equal(pixels.reshape(expected.shape), expected)


def test_damage_is_named_as_open_image_names_it() -> None:
    target = target_size(200, 180, BOUNDS)
    for form in ("JPEG", "PNG"):
        whole = encoded(picture(200, 180), form)
        with pytest.raises(ImageError, match=r"^truncated: OSError: "):
            resized_image(whole[: len(whole) // 2], form, (200, 180), target)


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA"])
@pytest.mark.parametrize("size", [(100, 120), (179, 131), (91, 100), (91, 201)])
def test_smaller_is_antialiased_bicubic(mode: str, size: tuple[int, int]) -> None:
    image = picture(*size, mode)
    target = target_size(*size, BOUNDS)
    assert (target.action, target.kernel) == ("down", "bicubic")
    small = as_image(resample(image, target))
    assert (small.mode, small.size) == (mode, target.size)
    other = image.resize(target.size, Image.Resampling.BICUBIC)
    # Colours that are hardly seen are rounded more than others: they are compared as they look on black.
    one, other = (np.asarray(each.convert("RGBA").convert("RGBa"), int) for each in (small, other))
    assert np.abs(one - other).max() <= 4  # each rounds its own way between rows and columns
    assert np.abs(one - other).mean() < 0.5


@given(
    st.integers(1, 150), st.integers(1, 150), st.integers(0, 75), st.integers(0, 75), st.binary(min_size=3, max_size=3)
)
def test_smaller_has_the_size_that_was_asked_for_and_one_colour_stays(
    width: int, height: int, less: int, lower: int, colour: bytes
) -> None:
    size = (max((width + 1) // 2, width - less), max((height + 1) // 2, height - lower))
    for factor in (Fraction(9, 10), Fraction(1, 10)):
        small = as_image(resample(Image.new("RGB", (width, height), tuple(colour)), Target(size, factor, strip=False)))
        assert small.getcolors() == [(size[0] * size[1], tuple(colour))]
